package server

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"sidecar/api/stats"
	"sidecar/internal/config"
	"sidecar/internal/config/source"
	"sidecar/internal/tlsctx"
	"sidecar/xds/transport"
)

// secret is one subscribed secret. It implements source.Watcher. Connections that have begun keep
// what they began with: a new version is one pointer swapped.
type secret struct {
	// Set by subscribe, never changed.
	name    string
	secrets *secrets
	log     *slog.Logger
	scope   *stats.Scope
	stats   *secretStats
	sub     source.Subscription
	ready   chan struct{} // the first answer came, or is not waited for any more
	once    sync.Once
	began   time.Time

	material atomic.Pointer[tlsctx.Material]

	mu       sync.Mutex // guards below
	digest   source.Digest
	read     source.Digest // of what its files held
	redacted []byte        // for config_dump
	version  string
	updated  time.Time
	filed    *tlsv3.Secret // the message in force, if it names files
	files    []*transport.File
	closed   bool
}

// secretStats are those that secrets have besides those of every subscription.
type secretStats struct {
	KeyRotationFailed stats.Counter `stat:"key_rotation_failed"`
}

// subscribe makes the secret of the use.
func (u *secretUse) subscribe() *secret {
	s := u.secrets.s
	x := &secret{
		name: u.name, secrets: u.secrets, log: s.opts.Logs.Component("config"), ready: make(chan struct{}),
		began: time.Now(),
	}
	x.scope = s.scope.Sub("sds." + u.name)
	x.stats = stats.Bind[secretStats](x.scope)
	x.sub = s.xds.Subscribe(source.Spec{
		TypeURL: source.SecretType, Names: []string{u.name}, Source: u.source, Watcher: x,
		Stats: stats.Bind[source.Stats](x.scope), ControlPlane: u.source.ControlPlane(x.scope),
	})
	return x
}

// close ends the subscription after the last use.
func (x *secret) close() {
	x.sub.Close()
	x.mu.Lock()
	x.closed = true
	files := x.files
	x.files, x.filed = nil, nil
	x.mu.Unlock()
	closeFiles(files)
	x.scope.Close()
}

func closeFiles(files []*transport.File) {
	for _, f := range files {
		f.Close()
	}
}

// Apply implements source.Watcher. As in Envoy a secret that the server takes away stays in force:
// only the configuration that names it can end it.
func (x *secret) Apply(u *source.Update) {
	for _, d := range u.Resources {
		m, ok := d.Message.(*tlsv3.Secret)
		switch {
		case !ok:
			d.Done(fmt.Errorf("is a %s", d.TypeURL))
		case m.GetName() != x.name:
			d.Done(fmt.Errorf("Unexpected SDS secret (expecting %s): %s", x.name, m.GetName())) //nolint:staticcheck // Envoy's words
		default:
			d.Done(x.take(m, d.Resource))
		}
	}
	x.markReady()
}

// take brings a version into force, unless it means what is in force already.
func (x *secret) take(m *tlsv3.Secret, r *source.Resource) error {
	x.mu.Lock()
	if x.material.Load() != nil && x.digest == r.Digest {
		x.version = r.Version
		x.mu.Unlock()
		return nil
	}
	x.mu.Unlock()
	full, read, err := readFiles(m)
	if err != nil {
		return err
	}
	material, err := x.compile(full)
	if err != nil {
		return err
	}
	x.mu.Lock()
	if x.closed {
		x.mu.Unlock()
		return nil
	}
	old := x.files
	x.files, x.filed = nil, nil
	if full != m {
		x.filed, _ = proto.Clone(m).(*tlsv3.Secret)
	}
	x.digest, x.version = r.Digest, r.Version
	x.swap(material, full, read)
	filed := x.filed
	x.mu.Unlock()
	closeFiles(old)
	if filed != nil {
		x.watch(filed)
	}
	return nil
}

func (x *secret) compile(full *tlsv3.Secret) (*tlsctx.Material, error) {
	var errs config.Errors
	material := tlsctx.CompileSecret(nil, full, x.secrets.env, &errs)
	return material, errs.Err()
}

// swap puts a version in force; the caller holds mu. Nothing but its redacted form is kept of full.
func (x *secret) swap(material *tlsctx.Material, full *tlsv3.Secret, read source.Digest) {
	shown, _ := proto.Clone(full).(*tlsv3.Secret)
	config.Redact(shown)
	if b, err := proto.Marshal(shown); err == nil {
		x.redacted = b
	}
	x.read, x.updated = read, time.Now()
	x.material.Store(material)
}

// watch has the files of a version read again when they are replaced.
func (x *secret) watch(m *tlsv3.Secret) {
	w, err := x.secrets.files()
	if err != nil {
		x.log.Error("sds: secret " + x.name + ": " + err.Error())
		return
	}
	var files []*transport.File
	for _, f := range filesOf(m) {
		file, err := w.Watch(f.path, f.dir, func([]byte, error) { x.reload(m) })
		if err != nil {
			x.stats.KeyRotationFailed.Inc()
			x.log.Error("sds: secret " + x.name + ": " + err.Error())
			continue
		}
		files = append(files, file)
	}
	x.mu.Lock()
	if !x.closed && x.filed == m {
		x.files, files = files, nil
	}
	x.mu.Unlock()
	closeFiles(files)
}

// reload reads the files of a version again. What was in force stays if they are not usable, such as
// when a key has been replaced and its certificate not yet: that comes with the next change.
func (x *secret) reload(m *tlsv3.Secret) {
	err := x.reread(m)
	if err != nil {
		x.stats.KeyRotationFailed.Inc()
		x.log.Warn("sds: secret " + x.name + " could not be loaded again: " + err.Error())
	}
}

func (x *secret) reread(m *tlsv3.Secret) error {
	full, read, err := readFiles(m)
	if err != nil {
		return err
	}
	x.mu.Lock()
	same := x.closed || x.filed != m || x.read == read
	x.mu.Unlock()
	if same {
		return nil
	}
	material, err := x.compile(full)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed || x.filed != m {
		return nil
	}
	x.swap(material, full, read)
	return nil
}

// Unavailable implements source.Watcher.
func (x *secret) Unavailable(err error) {
	if !errors.Is(err, source.ErrFetchTimeout) {
		x.log.Warn("sds: secret " + x.name + ": " + err.Error())
	}
	x.markReady()
}

func (x *secret) markReady() { x.once.Do(func() { close(x.ready) }) }
