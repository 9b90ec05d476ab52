package tlsctx

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"sidecar/internal/config"
)

// Provider finds the secrets that a context names. A nil source means the static secrets of the
// bootstrap. It has no side effects: a subscription begins with Secret.Await.
type Provider interface {
	Secret(name string, cs *corev3.ConfigSource) (Secret, error)
}

// Secret is one use of a secret. Its methods may be called from any goroutine.
type Secret interface {
	// Load returns what came last, nil while nothing has. It is one atomic load.
	Load() *Material
	// Await subscribes, and blocks until the first version has come, initial_fetch_timeout has passed,
	// or ctx ends.
	Await(ctx context.Context)
	// Retire ends the use.
	Retire()
}

// SecretEnv is what compiling a secret may use.
type SecretEnv struct {
	// Log, if not nil, is told of a certificate that has expired; that is no error, as in Envoy.
	Log *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

func (e *SecretEnv) now() time.Time {
	if e == nil || e.Now == nil {
		return time.Now()
	}
	return e.Now()
}

// Material is a compiled secret: exactly one of its parts is there. It never changes. It has private
// keys in it and must not be printed.
type Material struct {
	Certificate *Certificate
	Validation  *Validation
	Tickets     *TicketKeys
	Generic     *Generic
	// Name is the secret's, empty if it is part of a context.
	Name string
	// Files are those that it was read from: when one is replaced, the secret is to be compiled again.
	// Directories are where that shows: watched_directory if there is one, else where the files are.
	Files, Directories []string
}

// Generic is a compiled GenericSecret.
type Generic struct {
	Secret  []byte
	Secrets map[string][]byte
}

// TicketKeys are the keys of session tickets, the first of which encrypts new ones.
type TicketKeys struct{ keys [][32]byte }

// String keeps keys out of logs.
func (m *Material) String() string { return "[redacted]" }

// LogValue keeps keys out of logs.
func (m *Material) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// maxSecretBytes bounds each data source of a secret.
const maxSecretBytes = 16 << 20

// CompileSecret compiles a secret and reads its files. It reports what is wrong to errs, without any
// of the secret's contents, and returns nil then.
func CompileSecret(p *config.Path, m *tlsv3.Secret, env *SecretEnv, errs *config.Errors) *Material {
	before := errs.Len()
	secretFields.Check(p, m, errs)
	out := &Material{Name: m.GetName()}
	switch x := m.GetType().(type) {
	case *tlsv3.Secret_TlsCertificate:
		out.Certificate = compileCertificate(p.Field("tls_certificate"), x.TlsCertificate, env, out, errs)
	case *tlsv3.Secret_ValidationContext:
		out.Validation = compileValidation(p.Field("validation_context"), x.ValidationContext, out, errs)
	case *tlsv3.Secret_SessionTicketKeys:
		out.Tickets = compileTickets(p.Field("session_ticket_keys"), x.SessionTicketKeys, out, errs)
	case *tlsv3.Secret_GenericSecret:
		out.Generic = compileGeneric(p.Field("generic_secret"), x.GenericSecret, out, errs)
	default:
		errs.Add(p, "Secret type not implemented")
	}
	if errs.Len() != before {
		return nil
	}
	return out
}

// read gives the bytes of a data source and notes the file that they come from.
func (m *Material) read(p *config.Path, ds *corev3.DataSource, errs *config.Errors) ([]byte, bool) {
	data, ok := config.ReadDataSource(p, ds, maxSecretBytes, errs)
	if f := ds.GetFilename(); f != "" && ok {
		m.Files = append(m.Files, f)
		m.watch(filepath.Dir(f))
	}
	return data, ok
}

func (m *Material) watch(dir string) {
	if !slices.Contains(m.Directories, dir) {
		m.Directories = append(m.Directories, dir)
	}
}

// watchOnly has a watched_directory take the place of the directories of the files.
func (m *Material) watchOnly(p *config.Path, w *corev3.WatchedDirectory, errs *config.Errors) {
	watchedFields.Check(p, w, errs)
	if w.GetPath() != "" {
		m.Directories = []string{filepath.Clean(w.GetPath())}
	}
}

// nameOr is how stats call what is in the secret. Envoy puts the digest of an empty text where there
// is no name.
func (m *Material) nameOr(kind string) string {
	if m.Name != "" {
		return m.Name
	}
	return kind + "e3b0c442"
}

// sourceName is how Envoy calls a data source in its errors.
func sourceName(ds *corev3.DataSource) string {
	if f := ds.GetFilename(); f != "" {
		return f
	}
	return "<inline>"
}

// ticketKeyBytes is what Envoy wants of a key: a name, an HMAC key and an AES key.
const ticketKeyBytes = 80

// compileTickets reads the keys of session tickets.
//
// DIVERGES(tls-tickets): crypto/tls has a ticket format of its own, so a ticket is taken by all
// sidecars with the same keys but by no Envoy.
func compileTickets(p *config.Path, t *tlsv3.TlsSessionTicketKeys, m *Material, errs *config.Errors) *TicketKeys {
	ticketFields.Check(p, t, errs)
	out := &TicketKeys{}
	for i, ds := range t.GetKeys() {
		at := p.Field("keys").Index(i)
		data, ok := m.read(at, ds, errs)
		if !ok {
			continue
		}
		if len(data) != ticketKeyBytes {
			errs.Addf(at, "Incorrect TLS session ticket key length. Length %d, expected length %d.",
				len(data), ticketKeyBytes)
			continue
		}
		out.keys = append(out.keys, ticketKey(data))
	}
	if len(t.GetKeys()) == 0 {
		errs.Add(p.Field("keys"), "must have at least 1 item")
	}
	return out
}

func compileGeneric(p *config.Path, g *tlsv3.GenericSecret, m *Material, errs *config.Errors) *Generic {
	genericFields.Check(p, g, errs)
	out := &Generic{Secrets: map[string][]byte{}}
	if g.GetSecret() != nil {
		out.Secret, _ = m.read(p.Field("secret"), g.GetSecret(), errs)
	}
	for name, ds := range g.GetSecrets() {
		out.Secrets[name], _ = m.read(p.Field("secrets").Key(name), ds, errs)
	}
	return out
}
