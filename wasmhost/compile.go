package wasmhost

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"sidecar/internal/task"
	"sidecar/wasmhost/code/cache"
	"sidecar/wasmhost/internal/engine"
)

// compileTime bounds one module's compiling; of processor time, so that a busy machine only takes longer.
const compileTime = 5 * time.Minute

// smallModule is a module that is compiled in about a second, which is not worth waiting for an idle
// processor.
const smallModule = 1 << 20

// compile makes native code of a module: in a child process if there is a command for it, one at a time.
// A compiler needs twenty times the module's size in memory, and what it has had stays with the process.
func (h *Host) compile(ctx context.Context, digest cache.Digest, code []byte) (*engine.Module, error) {
	select {
	case h.compiler <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-h.compiler }()
	if len(h.opts.Compiler) == 0 {
		m, err := h.engine.Compile(code)
		if err == nil {
			h.keepCompiled(digest, m)
		}
		return m, err
	}
	start := time.Now()
	out, inCache, err := h.output()
	if err != nil {
		return nil, fmt.Errorf("compiled code: %w", err)
	}
	var m *engine.Module
	if err = h.childInTimeOf(ctx, code, out, patience(len(code))); err == nil {
		m, err = h.mapped(out)
	}
	switch {
	case err != nil && inCache:
		h.cache.Discard(out)
	case err != nil || !inCache:
		_ = out.Close() // What is mapped stays.
	default:
		// Writing to the disk may take long, and nobody has to wait for it.
		h.done.Add(1)
		task.Go("wasm cache", func() {
			defer h.done.Done()
			if err := h.cache.CommitCompiled(out, digest); err != nil {
				h.opts.Log.Warn("wasm: compiled code could not be put into the cache", "error", err)
			}
		}, h.panicked)
	}
	if err == nil {
		h.opts.Log.Debug("wasm: compiled", "bytes", len(code), "took", time.Since(start))
	}
	return m, err
}

// keepCompiled puts what this process has compiled itself into the cache.
func (h *Host) keepCompiled(digest cache.Digest, m *engine.Module) {
	if h.cache == nil {
		return
	}
	saved, err := m.Save()
	if err == nil {
		var f *os.File
		if f, err = h.cache.Create(); err == nil {
			if _, err = f.Write(saved); err == nil {
				err = h.cache.CommitCompiled(f, digest)
			} else {
				h.cache.Discard(f)
			}
		}
	}
	if err != nil {
		h.opts.Log.Warn("wasm: compiled code could not be put into the cache", "error", err)
	}
}

// output is the file that the child writes to: in the cache, or in memory where there is none, or no
// place in it.
func (h *Host) output() (f *os.File, inCache bool, err error) {
	if h.cache != nil {
		if f, err = h.cache.Create(); err == nil {
			return f, true, nil
		}
		h.opts.Log.Warn("wasm: no file can be made in the cache", "error", err)
	}
	f, err = memoryFile("wasm-compiled")
	return f, false, err
}

// patience is how long a child may try on what processor time nobody else wants, if it gets that alone:
// several times what it needs on an idle processor.
func patience(size int) time.Duration { return 20*time.Second + time.Duration(size>>20)*5*time.Second }

// childInTimeOf has a child compile in the time that is left over; on a machine where none is, for so
// long, another does it at the expense of others.
func (h *Host) childInTimeOf(ctx context.Context, code []byte, out *os.File, long time.Duration) error {
	if len(code) > smallModule {
		idle, cancel := context.WithTimeout(ctx, long)
		defer cancel()
		err := h.child(idle, code, out)
		if err == nil || idle.Err() == nil || ctx.Err() != nil {
			return err
		}
		h.opts.Log.Info("wasm: compiling takes processor time from others, after it got too little", "bytes", len(code))
		if _, err := out.Seek(0, io.SeekStart); err != nil {
			return err
		}
		if err := out.Truncate(0); err != nil {
			return err
		}
	}
	return h.child(ctx, code, out, hurry)
}

// hurry is the argument for a child that may claim a part of the processors.
const hurry = "hurry"

// child runs the command with the module at its input and out as file 3, and waits for it.
func (h *Host) child(ctx context.Context, code []byte, out *os.File, more ...string) error {
	var said tail
	args := append(h.opts.Compiler[1:len(h.opts.Compiler):len(h.opts.Compiler)], more...)
	cmd := exec.CommandContext(ctx, h.opts.Compiler[0], args...) //nolint:gosec // our own binary
	cmd.Stdin, cmd.Stderr = bytes.NewReader(code), &said
	cmd.ExtraFiles = []*os.File{out}
	cmd.Env = []string{"GOMAXPROCS=1", "RUST_BACKTRACE=0"}
	cmd.WaitDelay = time.Second
	limitChild(cmd)
	// The kernel ends the child with the thread that started it, so that the thread must live on.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &exit) && exit.ExitCode() == exitRefused:
		return errors.New(said.text())
	case errors.As(err, &exit):
		return fmt.Errorf("compiling took more than it may, or crashed (%s)%s", exit.ProcessState, said.suffix())
	}
	return fmt.Errorf("compiler: %w", err)
}

// exitRefused is the child's exit code for a module that doesn't compile; standard error says why.
const exitRefused = 3

// tail keeps the last bytes that the child says.
type tail struct{ b []byte }

const tailBytes = 8 << 10

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if extra := len(t.b) - tailBytes; extra > 0 {
		t.b = t.b[extra:]
	}
	return len(p), nil
}

func (t *tail) text() string { return strings.TrimSpace(string(t.b)) }

func (t *tail) suffix() string {
	line, _, _ := strings.Cut(t.text(), "\n")
	if line == "" {
		return ""
	}
	return ": " + line
}

// CompileChild is what the command of Options.Compiler has to do: it compiles the module at in to out,
// under limits of memory and time and with the least claim to a processor, or a small one if args, which
// are those after the command's own, say so. It returns the exit code.
func CompileChild(args []string, in io.Reader, out, stderr io.Writer) int {
	runtime.LockOSThread() // Compiling happens on this thread, whose claims are lowered.
	if err := limitSelf(compileTime); err != nil {
		fmt.Fprintln(stderr, "limits:", err)
		return 1
	}
	code, err := io.ReadAll(io.LimitReader(in, maxCodeBytes+1))
	if err != nil {
		fmt.Fprintln(stderr, "module:", err)
		return 1
	}
	yield(!slices.Contains(args, hurry))
	e, err := engine.New(engine.Options{})
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	defer e.Close()
	m, err := e.Compile(code)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitRefused
	}
	defer m.Close()
	saved, err := m.Save()
	if err == nil {
		_, err = out.Write(saved)
	}
	if err != nil {
		fmt.Fprintln(stderr, "compiled code:", err)
		return 1
	}
	return 0
}
