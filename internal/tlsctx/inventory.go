package tlsctx

import (
	"crypto/x509"
	"slices"
	"sync"
)

// Inventory lists the contexts in use. The zero value is ready; its methods may be called from any
// goroutine.
type Inventory struct {
	mu   sync.Mutex // guards below
	list []*common
}

func (v *Inventory) add(c *common) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !slices.Contains(v.list, c) {
		v.list = append(v.list, c)
	}
}

func (v *Inventory) remove(c *common) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if i := slices.Index(v.list, c); i >= 0 {
		v.list = slices.Delete(v.list, i, i+1)
	}
}

// Held is what one context has.
type Held struct {
	// CA is the first of the trusted ones, nil if there are none, and CAPath where they were read from.
	CA     *x509.Certificate
	CAPath string
	// Certificates are its own.
	Certificates []*Certificate
}

// Held returns what each context in use has now, in the order in which they came.
func (v *Inventory) Held() []Held {
	v.mu.Lock()
	list := slices.Clone(v.list)
	v.mu.Unlock()
	var out []Held
	for _, c := range list {
		d := c.current()
		if d == nil {
			continue
		}
		h := Held{Certificates: d.certs}
		if x := d.validation; x != nil && len(x.CAs) > 0 {
			h.CA, h.CAPath = x.CAs[0], x.Path
		}
		if h.CA != nil || len(h.Certificates) > 0 {
			out = append(out, h)
		}
	}
	return out
}
