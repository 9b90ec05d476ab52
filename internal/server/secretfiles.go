package server

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"sidecar/internal/config"
	"sidecar/internal/config/source"
)

// maxSecretFile bounds what is read of one file: no bundle of certificates is that long.
const maxSecretFile = 16 << 20

// secretFile is a file that a secret names, and the directory in which its replacement shows.
type secretFile struct {
	path, dir string
	data      *corev3.DataSource
	field     *config.Path
}

// filesOf finds the files of a secret, in the order of its fields. Without a watched_directory, that
// of the file is watched, as in Envoy.
func filesOf(m *tlsv3.Secret) []secretFile {
	var out []secretFile
	findFiles(m.ProtoReflect(), nil, "", &out)
	return out
}

func findFiles(m protoreflect.Message, p *config.Path, dir string, out *[]secretFile) {
	switch x := m.Interface().(type) {
	case *corev3.DataSource:
		if own := x.GetWatchedDirectory().GetPath(); own != "" {
			dir = own
		}
		if path := x.GetFilename(); path != "" {
			if dir == "" {
				dir = filepath.Dir(path)
			}
			*out = append(*out, secretFile{path: path, dir: dir, data: x, field: p})
		}
		return
	case *tlsv3.TlsCertificate:
		dir = x.GetWatchedDirectory().GetPath()
	case *tlsv3.CertificateValidationContext:
		dir = x.GetWatchedDirectory().GetPath()
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if fd.Message() == nil || fd.IsMap() || !m.Has(fd) {
			continue
		}
		at := p.Field(string(fd.Name()))
		if !fd.IsList() {
			findFiles(m.Get(fd).Message(), at, dir, out)
			continue
		}
		for j, l := 0, m.Get(fd).List(); j < l.Len(); j++ {
			findFiles(l.Get(j).Message(), at.Index(j), dir, out)
		}
	}
}

// readFiles returns the secret with the contents of its files in the place of their names, as Envoy
// shows it, and a digest of them. A secret without files is returned itself.
func readFiles(m *tlsv3.Secret) (*tlsv3.Secret, source.Digest, error) {
	var digest source.Digest
	if len(filesOf(m)) == 0 {
		return m, digest, nil
	}
	full, _ := proto.Clone(m).(*tlsv3.Secret)
	var errs config.Errors
	h := sha256.New()
	for _, f := range filesOf(full) {
		data, err := readSecretFile(f.path)
		if err != nil {
			errs.Wrap(f.field.Field("filename"), err)
			continue
		}
		f.data.WatchedDirectory = nil // heeded; what is left is not a file
		f.data.Specifier = &corev3.DataSource_InlineBytes{InlineBytes: data}
		h.Write(binary.AppendUvarint(nil, uint64(len(data)))) //nolint:errcheck // a hash never fails
		h.Write(data)                                         //nolint:errcheck // a hash never fails
	}
	copy(digest[:], h.Sum(nil))
	return full, digest, errs.Err()
}

func readSecretFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	data, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxSecretFile {
		return nil, fmt.Errorf("%s: longer than %d bytes", path, maxSecretFile)
	}
	return data, nil
}
