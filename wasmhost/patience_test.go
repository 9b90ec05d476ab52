package wasmhost

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"runtime"
	"testing"
	"time"
)

// TestChildInTime holds that a large module is compiled in time that nobody wants first, that a small
// one isn't, and that what a child has left behind doesn't stay in the file.
func TestChildInTime(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("needs memfd")
	}
	script := `if [ "$0" = hurry ]; then printf done >&3; else printf 'too slow' >&3; exec sleep 600; fi`
	h := &Host{opts: Options{Log: slog.New(slog.DiscardHandler), Compiler: []string{"/bin/sh", "-c", script}}}
	for _, size := range []int{10, smallModule + 1} {
		out, err := memoryFile("test")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		err = h.childInTimeOf(ctx, bytes.Repeat([]byte{0}, size), out, 50*time.Millisecond)
		cancel()
		if err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
		var got []byte
		if _, err = out.Seek(0, io.SeekStart); err == nil {
			got, err = io.ReadAll(out)
		}
		if err != nil || string(got) != "done" {
			t.Errorf("%d bytes: %q, %v", size, got, err)
		}
		_ = out.Close()
	}
}
