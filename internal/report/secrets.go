package report

import "regexp"

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
	text = secret.ReplaceAll(text, []byte(`$1"`+removed+`"`))
	text = pageUser.ReplaceAll(text, []byte(`$1`))
	return pageQuestion.ReplaceAll(text, []byte(`$1?`+removed))
}
