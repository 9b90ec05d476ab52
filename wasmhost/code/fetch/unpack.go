package fetch

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
)

// magic begins every module.
const magic = "\x00asm"

// IsModule tells whether bytes begin as a module does.
func IsModule(b []byte) bool { return bytes.HasPrefix(b, []byte(magic)) }

func isGzip(b []byte) bool { return bytes.HasPrefix(b, []byte{0x1f, 0x8b}) }

// maxEntries bounds the files that are looked at in an archive.
const maxEntries = 10000

// Unpack finds the module in what was downloaded: the bytes themselves, or what is in a gzip stream, or
// the first file of a tar archive. At most limit bytes are unpacked.
func Unpack(b []byte, limit int64) ([]byte, error) {
	if isGzip(b) {
		plain, err := gunzip(b, limit)
		if err != nil {
			return nil, err
		}
		b = plain
	}
	if IsModule(b) {
		return b, nil
	}
	code, err := untar(bytes.NewReader(b), limit, func(string) bool { return true })
	switch {
	case errors.Is(err, errNotFound), errors.Is(err, tar.ErrHeader), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errNoModule
	case err != nil:
		return nil, err
	case !IsModule(code):
		return nil, errNoModule
	}
	return code, nil
}

var (
	errNoModule = errors.New("not a Wasm module, nor an archive whose first file is one")
	errNotFound = errors.New("no such file in the archive")
)

func gunzip(b []byte, limit int64) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	plain, err := read(z, limit)
	if err != nil {
		return nil, fmt.Errorf("unpacked: %w", err)
	}
	return plain, nil
}

// untar returns the first regular file that wanted takes. Of an archive no more than twice the limit is
// read, however much it says it holds.
func untar(r io.Reader, limit int64, wanted func(name string) bool) ([]byte, error) {
	bounded := &io.LimitedReader{R: r, N: 2*limit + 1<<20}
	t := tar.NewReader(bounded)
	for range maxEntries {
		h, err := t.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil, errNotFound
		case err != nil && bounded.N <= 0:
			return nil, fmt.Errorf("archive: larger than %d bytes", 2*limit)
		case err != nil:
			return nil, err
		}
		if h.Typeflag != tar.TypeReg || !wanted(path.Base(h.Name)) {
			continue
		}
		if h.Size > limit {
			return nil, fmt.Errorf("%s: larger than %d bytes", path.Base(h.Name), limit)
		}
		return read(t, limit)
	}
	return nil, fmt.Errorf("archive: more than %d entries", maxEntries)
}
