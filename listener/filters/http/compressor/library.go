package compressor

import (
	"io"

	"github.com/andybalholm/brotli"
	brotliv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/brotli/compressor/v3"
	gzipv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/gzip/compressor/v3"
	zstdv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/zstd/compressor/v3"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/types/known/anypb"

	"sidecar/internal/buf"
	"sidecar/internal/config"
)

//nolint:gochecknoglobals // immutable tables
var (
	gzipFields = config.Fields[*gzipv3.Gzip]{
		Used: "compression_level",
		NoOp: map[string]string{
			"memory_level":         "the memory of this library is fixed",
			"compression_strategy": "this library finds the strategy by itself",
			"window_bits":          "this library always uses the largest window, which every client can read",
			"chunk_size":           "output goes to the connection's own buffer",
		},
	}
	brotliFields = config.Fields[*brotliv3.Brotli]{
		Used: "quality window_bits",
		NoOp: map[string]string{
			"encoder_mode":                     "this library has one mode",
			"input_block_bits":                 "this library chooses its blocks",
			"chunk_size":                       "output goes to the connection's own buffer",
			"disable_literal_context_modeling": "this library decides on it",
		},
	}
	zstdFields = config.Fields[*zstdv3.Zstd]{
		Used:    "compression_level enable_checksum",
		Refused: "dictionary",
		NoOp: map[string]string{
			"strategy":   "this library chooses the strategy by the level",
			"chunk_size": "output goes to the connection's own buffer",
		},
	}
)

// encoder compresses one body after another.
type encoder interface {
	io.WriteCloser
	Flush() error
	Reset(w io.Writer)
}

// library makes encoders of one kind; those that are free are kept.
type library struct {
	encoding, stat string
	free           buf.Pool[slot]
}

// slot holds an encoder and where it writes to.
type slot struct {
	enc encoder
	out *buf.Buffer
}

// Write implements io.Writer for the encoder.
func (s *slot) Write(p []byte) (int, error) {
	s.out.Append(p)
	return len(p), nil
}

// compress replaces the data by what it is compressed to; end completes the stream.
func (s *slot) compress(data *buf.Buffer, end bool) error {
	var out buf.Buffer
	s.out = &out
	if _, err := s.enc.Write(data.Bytes()); err != nil {
		return err
	}
	err := s.enc.Flush()
	if end {
		err = s.enc.Close()
	}
	s.out = nil
	data.Reset()
	data.Swap(&out)
	return err
}

// The defaults of Envoy's libraries.
const (
	defaultBrotliQuality = 3
	defaultBrotliWindow  = 18
	defaultZstdLevel     = 3
)

func compileLibrary(p *config.Path, a *anypb.Any, errs *config.Errors) *library {
	l := &library{}
	var create func(w io.Writer) encoder
	switch config.TypeName(a) {
	case gzipFields.Message().FullName():
		l.encoding, l.stat = "gzip", "gzip"
		if m, ok := config.OpenAs[*gzipv3.Gzip](p, a, errs); ok {
			gzipFields.Check(p, m, errs)
			level := gzipLevel(m.GetCompressionLevel())
			create = func(w io.Writer) encoder {
				z, err := gzip.NewWriterLevel(w, level)
				if err != nil {
					return gzip.NewWriter(w)
				}
				return z
			}
		}
	case brotliFields.Message().FullName():
		l.encoding, l.stat = "br", "brotli"
		if m, ok := config.OpenAs[*brotliv3.Brotli](p, a, errs); ok {
			brotliFields.Check(p, m, errs)
			o := brotli.WriterOptions{
				Quality: int(config.Value(m.GetQuality(), defaultBrotliQuality)),
				LGWin:   int(config.Value(m.GetWindowBits(), defaultBrotliWindow)),
			}
			create = func(w io.Writer) encoder { return brotli.NewWriterOptions(w, o) }
		}
	case zstdFields.Message().FullName():
		l.encoding, l.stat = "zstd", "zstd"
		if m, ok := config.OpenAs[*zstdv3.Zstd](p, a, errs); ok {
			zstdFields.Check(p, m, errs)
			create = zstdEncoder(m)
		}
	default:
		errs.Addf(p, "%w", config.UnknownType(a))
	}
	l.free.New = func() *slot {
		s := &slot{}
		s.enc = create(s)
		return s
	}
	return l
}

func zstdEncoder(m *zstdv3.Zstd) func(w io.Writer) encoder {
	level := zstd.EncoderLevelFromZstd(int(config.Value(m.GetCompressionLevel(), defaultZstdLevel)))
	sum := m.GetEnableChecksum()
	return func(w io.Writer) encoder {
		e, err := zstd.NewWriter(w, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1),
			zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(sum), zstd.WithWindowSize(1<<19))
		if err != nil {
			panic(err) // options that are not valid: a mistake in the program
		}
		return e
	}
}

// gzipLevel is zlib's level.
func gzipLevel(l gzipv3.Gzip_CompressionLevel) int {
	switch l {
	case gzipv3.Gzip_BEST_COMPRESSION:
		return gzip.BestCompression
	case gzipv3.Gzip_BEST_SPEED:
		return gzip.BestSpeed
	case gzipv3.Gzip_COMPRESSION_LEVEL_2, gzipv3.Gzip_COMPRESSION_LEVEL_3, gzipv3.Gzip_COMPRESSION_LEVEL_4,
		gzipv3.Gzip_COMPRESSION_LEVEL_5, gzipv3.Gzip_COMPRESSION_LEVEL_6, gzipv3.Gzip_COMPRESSION_LEVEL_7,
		gzipv3.Gzip_COMPRESSION_LEVEL_8:
		return int(l)
	default:
		return gzip.DefaultCompression
	}
}
