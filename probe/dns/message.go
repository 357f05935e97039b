package dns

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/net/dns/dnsmessage"

	"tapgw/probe"
)

// errNotOurs is an answer to another question; the right one may follow.
var errNotOurs = errors.New("not an answer to this question")

// query builds a question for the addresses of a name, of IPv6 or IPv4.
func query(id uint16, name string, ipv6 bool) ([]byte, error) {
	full, err := dnsmessage.NewName(name + ".")
	if err != nil {
		return nil, fmt.Errorf("ask for %s: %w", name, err)
	}
	question := dnsmessage.Question{Name: full, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}
	if ipv6 {
		question.Type = dnsmessage.TypeAAAA
	}
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: id, RecursionDesired: true}, Questions: []dnsmessage.Question{question}}
	return m.Pack()
}

// maxAnswers bounds how many records of an answer are looked at.
const maxAnswers = 64

// addresses reads what a message that may be forged answers to a query: the addresses, or why there are none.
func addresses(message, query []byte) ([]netip.Addr, error) {
	var p, q dnsmessage.Parser
	header, err := p.Start(message)
	if err != nil {
		return nil, errNotOurs
	}
	asked, err := q.Start(query)
	if err != nil {
		return nil, err
	}
	question, err := p.Question()
	if wanted, werr := q.Question(); err != nil || werr != nil || !header.Response || header.ID != asked.ID || question.Type != wanted.Type ||
		question.Class != wanted.Class || !equal(question.Name, wanted.Name) {
		return nil, errNotOurs
	}
	switch header.RCode {
	case dnsmessage.RCodeSuccess:
	case dnsmessage.RCodeNameError:
		return nil, &probe.WrongError{What: "says that there is no " + name(question)}
	case dnsmessage.RCodeServerFailure:
		return nil, errors.New("the resolver fails")
	case dnsmessage.RCodeRefused:
		return nil, errors.New("the resolver refuses")
	default:
		return nil, fmt.Errorf("the resolver reports error %d", header.RCode)
	}
	if err := p.SkipAllQuestions(); err != nil {
		return nil, errNotOurs
	}
	var list []netip.Addr
	for range maxAnswers {
		a, more := next(&p)
		if !more {
			break
		}
		if a.IsValid() {
			list = append(list, a)
		}
	}
	if len(list) == 0 {
		return nil, &probe.WrongError{What: "has no address for " + name(question)}
	}
	return list, nil
}

// next reads a record; its address is invalid where it has none.
func next(p *dnsmessage.Parser) (a netip.Addr, more bool) {
	h, err := p.AnswerHeader()
	if err != nil {
		return a, false
	}
	switch h.Type {
	case dnsmessage.TypeA:
		r, err := p.AResource()
		return netip.AddrFrom4(r.A), err == nil
	case dnsmessage.TypeAAAA:
		r, err := p.AAAAResource()
		return netip.AddrFrom16(r.AAAA), err == nil
	}
	return a, p.SkipAnswer() == nil
}

// equal compares names without regard to case (RFC 4343).
func equal(a, b dnsmessage.Name) bool {
	if a.Length != b.Length {
		return false
	}
	for i := range a.Length {
		if lower(a.Data[i]) != lower(b.Data[i]) {
			return false
		}
	}
	return true
}

func lower(b byte) byte {
	if b >= 'A' && b <= 'Z' {
		return b + 'a' - 'A'
	}
	return b
}

func name(q dnsmessage.Question) string {
	s := q.Name.String()
	return s[:max(len(s)-1, 0)]
}

// judge says what is wrong with an answer: that none of its addresses is the one wanted, or, where any will do, that one is not of
// the Internet, as somebody answers who wants to be visited first.
func judge(list []netip.Addr, target probe.Target) error {
	for _, a := range list {
		if a == target.Answer {
			return nil
		}
		if !target.Answer.IsValid() && !public(a) {
			return &probe.WrongError{What: fmt.Sprintf("says %s for %s, which is not on the Internet", a, target.Name)}
		}
	}
	if target.Answer.IsValid() {
		return &probe.WrongError{What: fmt.Sprintf("says %s for %s, not %s", list[0], target.Name, target.Answer)}
	}
	return nil
}

// shared is between customers and their provider (RFC 6598).
var shared = netip.MustParsePrefix("100.64.0.0/10")

func public(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsPrivate() && !shared.Contains(a)
}
