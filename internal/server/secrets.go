package server

import (
	"context"
	"errors"
	"fmt"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"sidecar/internal/config"
	"sidecar/internal/config/source"
	"sidecar/internal/tlsctx"
	"sidecar/xds/bootstrap"
	"sidecar/xds/transport"
)

// secrets holds those of the bootstrap and those that SDS brings, one for each name and source,
// however many contexts use it. It implements tlsctx.Provider.
type secrets struct {
	// Set by start, never changed.
	s      *Server
	env    *tlsctx.SecretEnv
	static map[string]*staticSecret
	order  []string // of the static ones

	contexts tlsctx.Inventory

	shared[*secret]

	mu      sync.Mutex // guards below
	watcher *transport.Files
	closed  bool
}

// staticSecret is a secret of the bootstrap, and its use at once: it is there from the beginning and
// never changes.
type staticSecret struct {
	material *tlsctx.Material
	redacted []byte
}

// Load implements tlsctx.Secret.
func (x *staticSecret) Load() *tlsctx.Material { return x.material }

// Await implements tlsctx.Secret.
func (*staticSecret) Await(context.Context) {}

// Retire implements tlsctx.Secret.
func (*staticSecret) Retire() {}

// secretUse is a context's use of a dynamic secret. It subscribes when it is awaited.
type secretUse struct {
	secrets *secrets
	key     string
	name    string
	source  *source.ConfigSource

	once   sync.Once
	retire sync.Once
	secret *secret
	loaded chan struct{}
}

var (
	_ tlsctx.Provider = (*secrets)(nil)
	_ tlsctx.Secret   = (*staticSecret)(nil)
	_ tlsctx.Secret   = (*secretUse)(nil)
)

// compileStatic compiles the secrets of the bootstrap. It runs before anything that may name one.
func (x *secrets) compileStatic(list []*tlsv3.Secret, errs *config.Errors) {
	x.static = map[string]*staticSecret{}
	for i, m := range list {
		p := bootstrap.SecretPath(i)
		if x.static[m.GetName()] != nil {
			errs.Addf(p.Field("name"), "Duplicate static secret, name: %s", m.GetName())
			continue
		}
		st := &staticSecret{material: tlsctx.CompileSecret(p, m, x.env, errs)}
		shown, _ := proto.Clone(m).(*tlsv3.Secret)
		config.Redact(shown)
		var err error
		if st.redacted, err = proto.Marshal(shown); err != nil {
			errs.Wrap(p, err)
		}
		x.static[m.GetName()] = st
		x.order = append(x.order, m.GetName())
	}
}

// Secret implements tlsctx.Provider.
func (x *secrets) Secret(name string, cs *corev3.ConfigSource) (tlsctx.Secret, error) {
	if cs == nil {
		if st := x.static[name]; st != nil {
			return st, nil
		}
		return nil, fmt.Errorf("Unknown static secret: %s", name) //nolint:staticcheck // Envoy's words
	}
	src, err := source.Compile(cs, "sds_config")
	if err != nil {
		return nil, err
	}
	if name == "" {
		return nil, errors.New("name: a secret that SDS brings needs one")
	}
	return &secretUse{
		secrets: x, key: src.Key + "\x00" + name, name: name, source: src, loaded: make(chan struct{}),
	}, nil
}

// Load implements tlsctx.Secret.
func (u *secretUse) Load() *tlsctx.Material {
	select {
	case <-u.loaded:
		return u.secret.material.Load()
	default:
		return nil
	}
}

// Await implements tlsctx.Secret.
func (u *secretUse) Await(ctx context.Context) {
	u.once.Do(func() {
		u.secret = u.secrets.acquire(u.key, u.subscribe)
		close(u.loaded)
	})
	select {
	case <-u.secret.ready:
	case <-ctx.Done():
	}
}

// Retire implements tlsctx.Secret; the last use ends the subscription.
func (u *secretUse) Retire() {
	u.retire.Do(func() {
		select {
		case <-u.loaded:
			u.secrets.release(u.key)
		default:
		}
	})
}

// files is the watch of the files that secrets name; nil after close.
func (x *secrets) files() (*transport.Files, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return nil, errors.New("the process ends")
	}
	if x.watcher == nil {
		var err error
		if x.watcher, err = transport.NewFiles(x.s.opts.Logs.Component("config")); err != nil {
			return nil, err
		}
	}
	return x.watcher, nil
}

// close ends the watch of files. Secrets in use stay as they are.
func (x *secrets) close() {
	x.mu.Lock()
	w := x.watcher
	x.watcher, x.closed = nil, true
	x.mu.Unlock()
	if w != nil {
		w.Close()
	}
}
