package report

import (
	"bytes"
	"regexp"
)

// removed stands where a secret was.
const removed = "removed"

var (
	secret = regexp.MustCompile(`(?i)("?[\w.-]*(?:password|passwd|passphrase|secret|token|api[_-]?key|private[_-]?key|psk)[\w.-]*"?[ \t]*[:=][ \t]*)("(?:[^"\\]|\\.)*"|'[^']*'|[^\s,}\]]+)`)
	// Users and questions in addresses of pages, which those of portals use for what tells one guest from another.
	pageUser     = regexp.MustCompile(`(https?://)[^/\s"'@]*@`)
	pageQuestion = regexp.MustCompile(`(https?://[^\s"'?#]*)[?#][^\s"']*`)
)

// Secrets takes passwords, keys and the like out of a text.
func Secrets(text []byte) []byte {
	text = secret.ReplaceAllFunc(text, func(found []byte) []byte {
		key := secret.FindSubmatch(found)[1]
		if bytes.Contains(key, []byte("_file")) { // where one is, is none
			return found
		}
		return append(bytes.Clone(key), `"`+removed+`"`...)
	})
	text = pageUser.ReplaceAll(text, []byte(`$1`))
	return pageQuestion.ReplaceAll(text, []byte(`$1?`+removed))
}
