package wasi

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"sidecar/wasmhost/internal/engine"
)

// Guest is what Instance.Data must be.
type Guest interface {
	// Environ is the environment as NAME=value.
	Environ() []string
	// Output takes what one write gave.
	Output(stderr bool, text string)
}

// Error numbers of WASI.
const (
	success     = 0
	errBadF     = 8
	errIO       = 20 // what Envoy's host says for readdir
	errFault    = 21
	errInval    = 28
	errNoEnt    = 44
	errNoSys    = 52
	errNotSup   = 58
	restrictedE = 76 // ENOTCAPABLE
)

// ExitError is the trap of proc_exit. DIVERGES(wasm-exit): Envoy logs and returns to a guest that
// doesn't expect it, which then hits an unreachable instruction.
type ExitError struct{ Code uint32 }

func (e *ExitError) Error() string { return fmt.Sprintf("the module called proc_exit(%d)", e.Code) }

const (
	maxRandom   = 64 << 10
	maxOutput   = 64 << 10 // of one write; the rest is cut off
	maxVectors  = 1024
	rightsWrite = 64
)

type function struct {
	name   string
	params string
	result string
	run    func(in *engine.Instance, a engine.Args) (uint64, error)
}

// Functions is all of WASI under both names, less what allowed refuses: that answers ENOTCAPABLE.
func Functions(allowed func(name string) bool) []engine.HostFunc {
	out := make([]engine.HostFunc, 0, 2*len(table()))
	for _, module := range []string{"wasi_snapshot_preview1", "wasi_unstable"} {
		for _, f := range table() {
			run := f.run
			if !allowed(f.name) && f.result != "" {
				run = answer(restrictedE)
			}
			out = append(out, engine.HostFunc{
				Module: module, Name: f.name, Signature: engine.Signature(f.params + ":" + f.result), Call: run,
			})
		}
	}
	return out
}

func answer(errno uint64) func(*engine.Instance, engine.Args) (uint64, error) {
	return func(*engine.Instance, engine.Args) (uint64, error) { return errno, nil }
}

// standard answers success for the standard streams and EBADF for the rest.
func standard(_ *engine.Instance, a engine.Args) (uint64, error) {
	if fd := a.U32(0); fd == 1 || fd == 2 {
		return success, nil
	}
	return errBadF, nil
}

func table() []function {
	return []function{
		{"args_get", "ii", "i", answer(success)},
		{"args_sizes_get", "ii", "i", argsSizes},
		{"environ_get", "ii", "i", environGet},
		{"environ_sizes_get", "ii", "i", environSizes},
		{"clock_res_get", "ii", "i", clockResolution},
		{"clock_time_get", "iIi", "i", clockTime},
		{"random_get", "ii", "i", randomGet},
		{"sched_yield", "", "i", answer(success)},
		{"poll_oneoff", "iiii", "i", pollOneoff},
		{"proc_exit", "i", "", procExit},
		{"proc_raise", "i", "i", answer(errNotSup)},
		{"fd_write", "iiii", "i", fdWrite},
		{"fd_pwrite", "iiiIi", "i", func(in *engine.Instance, a engine.Args) (uint64, error) {
			return write(in, a, 4)
		}},
		{"fd_read", "iiii", "i", answer(errNoSys)},
		{"fd_pread", "iiiIi", "i", answer(errNoSys)},
		{"fd_seek", "iIii", "i", answer(success)},
		{"fd_close", "i", "i", answer(success)},
		{"fd_fdstat_get", "ii", "i", fdStat},
		{"fd_fdstat_set_flags", "ii", "i", answer(errNoSys)},
		{"fd_fdstat_set_rights", "iII", "i", standard},
		{"fd_prestat_get", "ii", "i", answer(errBadF)},
		{"fd_prestat_dir_name", "iii", "i", answer(errNoSys)},
		{"fd_filestat_get", "ii", "i", answer(errBadF)},
		{"fd_filestat_set_size", "iI", "i", standard},
		{"fd_filestat_set_times", "iIIi", "i", standard},
		{"fd_advise", "iIIi", "i", answer(success)},
		{"fd_allocate", "iII", "i", standard},
		{"fd_datasync", "i", "i", standard},
		{"fd_sync", "i", "i", standard},
		{"fd_tell", "ii", "i", standard},
		{"fd_readdir", "iiiIi", "i", answer(errIO)},
		{"fd_renumber", "ii", "i", fdRenumber},
		{"path_open", "iiiiiIIii", "i", answer(errNoEnt)},
		{"path_filestat_get", "iiiii", "i", answer(errNotSup)},
		{"path_filestat_set_times", "iiiiIIi", "i", answer(errNotSup)},
		{"path_create_directory", "iii", "i", answer(errNotSup)},
		{"path_link", "iiiiiii", "i", answer(errNotSup)},
		{"path_readlink", "iiiiii", "i", answer(errNotSup)},
		{"path_remove_directory", "iii", "i", answer(errNotSup)},
		{"path_rename", "iiiiii", "i", answer(errNotSup)},
		{"path_symlink", "iiiii", "i", answer(errNotSup)},
		{"path_unlink_file", "iii", "i", answer(errNotSup)},
		{"sock_accept", "iii", "i", answer(errNotSup)},
		{"sock_recv", "iiiiii", "i", answer(errNotSup)},
		{"sock_send", "iiiii", "i", answer(errNotSup)},
		{"sock_shutdown", "ii", "i", answer(errNotSup)},
	}
}

func guest(in *engine.Instance) (Guest, error) {
	g, ok := in.Data.(Guest)
	if !ok {
		return nil, errors.New("wasi: the instance has no environment")
	}
	return g, nil
}

func put32(in *engine.Instance, p, v uint32) bool {
	b, ok := in.Bytes(p, 4)
	if ok {
		binary.LittleEndian.PutUint32(b, v)
	}
	return ok
}

func put64(in *engine.Instance, p uint32, v uint64) bool {
	b, ok := in.Bytes(p, 8)
	if ok {
		binary.LittleEndian.PutUint64(b, v)
	}
	return ok
}

// errnoUnless is success if ok.
func errnoUnless(ok bool, errno uint64) (uint64, error) {
	if ok {
		return success, nil
	}
	return errno, nil
}

func argsSizes(in *engine.Instance, a engine.Args) (uint64, error) {
	return errnoUnless(put32(in, a.U32(0), 0) && put32(in, a.U32(1), 0), errFault)
}

func environSizes(in *engine.Instance, a engine.Args) (uint64, error) {
	g, err := guest(in)
	if err != nil {
		return 0, err
	}
	var n int
	env := g.Environ()
	for _, e := range env {
		n += len(e) + 1
	}
	return errnoUnless(put32(in, a.U32(0), uint32(len(env))) && put32(in, a.U32(1), uint32(n)), errFault)
}

func environGet(in *engine.Instance, a engine.Args) (uint64, error) {
	g, err := guest(in)
	if err != nil {
		return 0, err
	}
	list, at := a.U32(0), a.U32(1)
	for i, e := range g.Environ() {
		b, ok := in.Bytes(at, uint32(len(e)+1))
		if !ok || !put32(in, list+uint32(4*i), at) {
			return errFault, nil
		}
		b[copy(b, e)] = 0
		at += uint32(len(e) + 1)
	}
	return success, nil
}

func clockResolution(in *engine.Instance, a engine.Args) (uint64, error) {
	if a.U32(0) > 1 {
		return errNotSup, nil
	}
	return errnoUnless(put64(in, a.U32(1), 1), errFault)
}

//nolint:gochecknoglobals // the zero of the guests' monotonic clock
var start = time.Now()

func clockTime(in *engine.Instance, a engine.Args) (uint64, error) {
	var now uint64
	switch a.U32(0) {
	case 0:
		now = uint64(time.Now().UnixNano())
	case 1:
		now = uint64(time.Since(start)) + 1
	default:
		return errNotSup, nil
	}
	return errnoUnless(put64(in, a.U32(2), now), errFault)
}

func randomGet(in *engine.Instance, a engine.Args) (uint64, error) {
	if a.U32(1) > maxRandom {
		return errInval, nil
	}
	b, ok := in.Bytes(a.U32(0), a.U32(1))
	if ok {
		_, _ = rand.Read(b) // Never fails.
	}
	return errnoUnless(ok, errInval)
}

// pollOneoff reports no event at once: Go's runtime needs it to succeed, and nothing may sleep here.
func pollOneoff(in *engine.Instance, a engine.Args) (uint64, error) {
	return errnoUnless(put32(in, a.U32(3), 0), errFault)
}

func procExit(_ *engine.Instance, a engine.Args) (uint64, error) {
	return 0, &ExitError{a.U32(0)}
}

func fdWrite(in *engine.Instance, a engine.Args) (uint64, error) { return write(in, a, 3) }

// write joins the vectors to one log line; the length written goes to parameter out.
func write(in *engine.Instance, a engine.Args, out int) (uint64, error) {
	fd := a.U32(0)
	if fd != 1 && fd != 2 {
		return errBadF, nil
	}
	g, err := guest(in)
	if err != nil {
		return 0, err
	}
	n := a.U32(2)
	vectors, ok := in.Bytes(a.U32(1), 8*min(n, maxVectors))
	if !ok || n > maxVectors {
		return errFault, nil
	}
	var text strings.Builder
	var written uint64
	for i := 0; i < len(vectors); i += 8 {
		b, ok := in.Bytes(binary.LittleEndian.Uint32(vectors[i:]), binary.LittleEndian.Uint32(vectors[i+4:]))
		if !ok {
			return errFault, nil
		}
		written += uint64(len(b))
		text.Write(b[:min(len(b), maxOutput-text.Len())])
	}
	g.Output(fd == 2, strings.TrimSuffix(text.String(), "\n"))
	return errnoUnless(put32(in, a.U32(out), uint32(written)), errFault)
}

func fdStat(in *engine.Instance, a engine.Args) (uint64, error) {
	if fd := a.U32(0); fd != 1 && fd != 2 {
		return errBadF, nil
	}
	b, ok := in.Bytes(a.U32(1), 24)
	if ok {
		clear(b)
		binary.LittleEndian.PutUint64(b[8:], rightsWrite)
	}
	return errnoUnless(ok, errFault)
}

func fdRenumber(_ *engine.Instance, a engine.Args) (uint64, error) {
	if fd := a.U32(0); fd == 1 || fd == 2 {
		return errNotSup, nil
	}
	return errBadF, nil
}
