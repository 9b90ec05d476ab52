package compressor

import (
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/internal/config/configtest"
	"sidecar/listener/filters/http/filtertest"
)

func TestFields(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, nil, fields, requestFields, responseFields, commonFields, libraryFields, flagFields,
		gzipFields, brotliFields, zstdFields)
}

const (
	gzipLib   = `compressor_library: {name: a, typed_config: {"@type": type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip}}`
	brotliLib = `compressor_library: {name: b, typed_config: {"@type": type.googleapis.com/envoy.extensions.compression.brotli.compressor.v3.Brotli}}`
	zstdLib   = `compressor_library: {name: z, typed_config: {"@type": type.googleapis.com/envoy.extensions.compression.zstd.compressor.v3.Zstd}}`
)

func factories(t *testing.T, store *stats.Store, more string) (out []filter.Factory) {
	t.Helper()
	for _, lib := range []string{brotliLib, zstdLib, gzipLib} {
		f, err := filtertest.Compile(t, Entry(Env{}), store, "{"+lib+more+"}")
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, f)
	}
	return out
}

func plain(t *testing.T, encoding, body string) string {
	t.Helper()
	var r io.Reader
	var err error
	switch encoding {
	case "gzip":
		r, err = gzip.NewReader(strings.NewReader(body))
	case "br":
		r = brotli.NewReader(strings.NewReader(body))
	case "zstd":
		r, err = zstd.NewReader(strings.NewReader(body))
	default:
		return body
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestCompressor(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		accept, more string
		response     []string
		encoding     string
		vary         string
	}{
		"gzip":           {"gzip", "", []string{"content-type: text/plain"}, "gzip", "Accept-Encoding"},
		"Brotli":         {"br", "", nil, "br", "Accept-Encoding"},
		"Zstandard":      {"zstd, gzip;q=0.5", "", nil, "zstd", "Accept-Encoding"},
		"liked best":     {"br;q=0.1, gzip;q=0.9", "", nil, "gzip", "Accept-Encoding"},
		"first of equal": {"gzip, deflate, br", "", nil, "gzip", "Accept-Encoding"},
		"wildcard":       {"*", "", nil, "br", "Accept-Encoding"},
		"identity":       {"identity, gzip;q=0.5", "", nil, "", "Accept-Encoding"},
		"not wanted":     {"gzip;q=0", "", nil, "", "Accept-Encoding"},
		"other type":     {"gzip", "", []string{"content-type: image/png"}, "", ""},
		"type named": {
			"gzip", `, response_direction_config: {common_config: {content_type: [image/png]}}`,
			[]string{"content-type: image/png; x=y"},
			"gzip", "Accept-Encoding",
		},
		"encoded already": {"gzip", "", []string{"content-encoding: x"}, "x", ""},
		"too short":       {"gzip", "", []string{"content-length: 29"}, "", ""},
		"long enough":     {"gzip", "", []string{"content-length: 30"}, "gzip", "Accept-Encoding"},
		"no-transform":    {"gzip", "", []string{"cache-control: private, no-transform"}, "", ""},
		"vary kept":       {"gzip", "", []string{"vary: x"}, "gzip", "x, Accept-Encoding"},
		"partial":         {"gzip", "", []string{":status: 206"}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := stats.New()
			s := filtertest.NewStream()
			var list []any
			h := filtertest.Fields(":path: /", "accept-encoding: "+tt.accept)
			for _, f := range factories(t, store, tt.more) {
				x := f.NewFilter(s)
				s.Request(x, h, nil, nil)
				list = append(list, x)
			}
			body := []string{strings.Repeat("abc ", 50), strings.Repeat("def ", 50)}
			want := strings.Join(body, "")
			res := filtertest.Fields(append([]string{"etag: \"1\""}, tt.response...)...)
			for _, x := range slices.Backward(list) {
				body = []string{s.Response(x, res, body, nil)}
				s.Destroy(x)
			}
			encoding, _ := res.Get("content-encoding")
			if vary, _ := res.Get("vary"); encoding != tt.encoding || vary != tt.vary {
				t.Errorf("encoding %q, vary %q", encoding, vary)
			}
			if got := plain(t, encoding, body[0]); got != want {
				t.Errorf("%d bytes: %.40q", len(got), got)
			}
			if _, ok := res.Get("etag"); ok != (encoding == "" || encoding == "x") {
				t.Errorf("strong etag: %v", ok)
			}
		})
	}
}
