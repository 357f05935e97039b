package apiserver

import (
	"crypto/rand"
	"sync"
	"time"
)

const (
	keyLife    = 2 * time.Minute // of a URL that signs in
	signedLife = 12 * time.Hour
	maxSigned  = 64
)

// tickets are secrets that stand for who asked for them, for a while. As many as are kept, the oldest makes room.
type tickets struct {
	now  func() time.Time
	life time.Duration
	mu   sync.Mutex
	held []ticket // the oldest first
}

type ticket struct {
	secret string
	holder *peer
	until  time.Time
}

func newTickets(now func() time.Time, life time.Duration) *tickets {
	return &tickets{now: now, life: life}
}

// issue returns a new secret that stands for p.
func (t *tickets) issue(p *peer) (secret string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.held) >= maxSigned {
		t.held = t.held[1:]
	}
	secret = rand.Text()
	t.held = append(t.held, ticket{secret, p, t.now().Add(t.life)})
	return secret
}

// holder is whom a secret stands for, nil for nobody. Secrets are compared as they are: they are long, random and few.
func (t *tickets) holder(secret string) *peer {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := t.find(secret); i >= 0 {
		return t.held[i].holder
	}
	return nil
}

// take is holder for a secret that counts once.
func (t *tickets) take(secret string) *peer {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := t.find(secret)
	if i < 0 {
		return nil
	}
	p := t.held[i].holder
	t.held = append(t.held[:i:i], t.held[i+1:]...)
	return p
}

func (t *tickets) find(secret string) int {
	for i, one := range t.held {
		if one.secret == secret && t.now().Before(one.until) {
			return i
		}
	}
	return -1
}
