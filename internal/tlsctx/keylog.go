package tlsctx

import (
	"errors"
	"os"
	"sync"
)

// keyLog writes the secrets of sessions for debuggers (key_log). The file is opened with the first
// session, so that compiling opens nothing.
type keyLog struct {
	path string

	mu     sync.Mutex // guards below
	f      *os.File
	closed bool
}

// keyLogMode keeps what decrypts sessions from others.
const keyLogMode = 0o600

// Write implements io.Writer. An error fails the handshake.
func (k *keyLog) Write(p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return len(p), nil // a session of a configuration that is being retired
	}
	if k.f == nil {
		f, err := os.OpenFile(k.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, keyLogMode)
		if err != nil {
			return 0, errors.New("key log cannot be opened")
		}
		k.f = f
	}
	return k.f.Write(p)
}

func (k *keyLog) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	if k.f != nil {
		_ = k.f.Close()
		k.f = nil
	}
}
