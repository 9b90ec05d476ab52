package h1

import (
	"reflect"
	"testing"
)

// An idle connection holds this and nothing else of ours.
func TestSize(t *testing.T) {
	t.Parallel()
	const most = 640
	if n := reflect.TypeFor[ServerConn]().Size(); n > most {
		t.Errorf("a server connection takes %d bytes", n)
	}
	if n := reflect.TypeFor[ClientConn]().Size(); n > most {
		t.Errorf("a client connection takes %d bytes", n)
	}
}
