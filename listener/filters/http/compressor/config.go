// Package compressor compresses bodies of responses and requests (envoy.filters.http.compressor) with
// gzip, Brotli or Zstandard.
//
// Several of them in one chain agree on which one compresses a response: the one of the encoding that
// the client likes best.
package compressor

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	compressorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/compressor/v3"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/internal/config"
)

// Name is Envoy's name of the filter.
const Name = "envoy.filters.http.compressor"

//nolint:gochecknoglobals // immutable tables
var (
	fields = config.Fields[*compressorv3.Compressor]{
		Used: "content_length content_type disable_on_etag_header remove_accept_encoding_header " +
			"runtime_enabled compressor_library request_direction_config response_direction_config choose_first",
	}
	requestFields = config.Fields[*compressorv3.Compressor_RequestDirectionConfig]{
		Refused: "common_config",
	}
	responseFields = config.Fields[*compressorv3.Compressor_ResponseDirectionConfig]{
		Used: "common_config disable_on_etag_header remove_accept_encoding_header " +
			"uncompressible_response_codes",
		Refused: "weaken_etag_on_compress status_header_enabled",
	}
	commonFields = config.Fields[*compressorv3.Compressor_CommonDirectionConfig]{
		Used: "enabled min_content_length content_type", Refused: "content_type_matcher",
	}
	libraryFields = config.Fields[*corev3.TypedExtensionConfig]{Used: "name typed_config"}
	flagFields    = config.Fields[*corev3.RuntimeFeatureFlag]{Used: "default_value runtime_key"}
)

// defaultTypes are the content types that are compressed where the configuration names none.
func defaultTypes() []string {
	return []string{
		"application/javascript", "application/json", "application/xhtml+xml", "image/svg+xml", "text/css",
		"text/html", "text/plain", "text/xml",
	}
}

const defaultMinLength = 30

// Env is what compiling may use.
type Env struct {
	// Runtime reads a switch of the runtime; nil: there is none.
	Runtime func(key string) (on, ok bool)
}

// Stats are "http.PREFIX.compressor.LIBRARY.ENCODING.".
type Stats struct {
	Used        stats.Counter `stat:"header_compressor_used"`
	Overshadow  stats.Counter `stat:"header_compressor_overshadowed"`
	Identity    stats.Counter `stat:"header_identity"`
	NotValid    stats.Counter `stat:"header_not_valid"`
	Wildcard    stats.Counter `stat:"header_wildcard"`
	NoAccept    stats.Counter `stat:"no_accept_header"`
	ETag        stats.Counter `stat:"not_compressed_etag"`
	Compressed  stats.Counter `stat:"response.compressed"`
	NotCompress stats.Counter `stat:"response.not_compressed"`
	TooSmall    stats.Counter `stat:"response.content_length_too_small"`
	In          stats.Counter `stat:"response.total_uncompressed_bytes"`
	Out         stats.Counter `stat:"response.total_compressed_bytes"`
}

// Config is a compiled filter.
type Config struct {
	env          Env
	lib          *library
	scope        *stats.Scope
	stats        *Stats
	minLength    uint64
	types        map[string]bool
	noETag       bool
	removeAccept bool
	first        bool
	enabled      bool
	enabledKey   string
	skipCodes    map[int]bool
}

// Entry is the filter as the binary knows it.
func Entry(env Env) filter.HTTPEntry {
	return filter.RegisterHTTP(Name, &compressorv3.Compressor{},
		func(m *compressorv3.Compressor, c filter.Context) (any, error) { return compile(m, c, env) })
}

func compile(m *compressorv3.Compressor, fc filter.Context, env Env) (any, error) {
	var errs config.Errors
	fields.Check(nil, m, &errs)
	r := m.GetResponseDirectionConfig()
	at := config.Field("response_direction_config")
	responseFields.Check(at, r, &errs)
	requestFields.Check(config.Field("request_direction_config"), m.GetRequestDirectionConfig(), &errs)
	common := r.GetCommonConfig()
	commonFields.Check(at.Field("common_config"), common, &errs)
	c := &Config{env: env, first: m.GetChooseFirst(), types: map[string]bool{}}
	// The fields at the top are those of before there were directions.
	length, types, flag := m.GetContentLength(), m.GetContentType(), m.GetRuntimeEnabled()   //nolint:staticcheck // still read
	c.noETag, c.removeAccept = m.GetDisableOnEtagHeader(), m.GetRemoveAcceptEncodingHeader() //nolint:staticcheck // still read
	if r != nil {
		length, types, flag = common.GetMinContentLength(), common.GetContentType(), common.GetEnabled()
		c.noETag, c.removeAccept = r.GetDisableOnEtagHeader(), r.GetRemoveAcceptEncodingHeader()
	}
	c.minLength = uint64(config.Value(length, defaultMinLength))
	if len(types) == 0 {
		types = defaultTypes()
	}
	for _, t := range types {
		c.types[strings.ToLower(t)] = true
	}
	flagFields.Check(at.Field("common_config.enabled"), flag, &errs)
	c.enabled, c.enabledKey = config.Value(flag.GetDefaultValue(), true), flag.GetRuntimeKey()
	for _, code := range r.GetUncompressibleResponseCodes() {
		if c.skipCodes == nil {
			c.skipCodes = map[int]bool{}
		}
		c.skipCodes[int(code)] = true
	}
	lp := config.Field("compressor_library")
	libraryFields.Check(lp, m.GetCompressorLibrary(), &errs)
	c.lib = compileLibrary(lp.Field("typed_config"), m.GetCompressorLibrary().GetTypedConfig(), &errs)
	if err := errs.Err(); err != nil {
		return nil, err
	}
	c.scope = fc.Scope.Sub(fc.StatPrefix + "compressor." + m.GetCompressorLibrary().GetName() + "." + c.lib.stat)
	c.stats = stats.Bind[Stats](c.scope)
	return c, nil
}

// Retire implements filter.Retirer.
func (c *Config) Retire() { c.scope.Close() }

func (c *Config) on() bool {
	if c.enabledKey != "" && c.env.Runtime != nil {
		if on, ok := c.env.Runtime(c.enabledKey); ok {
			return on
		}
	}
	return c.enabled
}
