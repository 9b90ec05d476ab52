package format

import (
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"sidecar/api/stream"
	"sidecar/internal/config"
)

// Output is a compiled text or JSON format.
type Output interface {
	// Append appends the formatted text to dst; the record is read only during the call.
	Append(dst []byte, in *stream.Info) []byte
}

// Substitution is a compiled SubstitutionFormatString.
type Substitution struct {
	Output
	contentType string
}

// ContentType is what the message sets, else text/plain or application/json by the kind of format.
func (s *Substitution) ContentType() string { return s.contentType }

var (
	substitutionFields = config.Fields[*corev3.SubstitutionFormatString]{
		Used: "text_format text_format_source json_format omit_empty_values content_type formatters",
		NoOp: map[string]string{
			"json_format_options": "keys come out sorted either way, as in Envoy",
		},
	}
	extensionFields = config.Fields[*corev3.TypedExtensionConfig]{
		Used: "typed_config",
		NoOp: map[string]string{"name": "the type of typed_config decides"},
	}
)

// CompileAt is CompileSubstitution that reports what is wrong at p and below; the result is nil
// then.
func CompileAt(
	p *config.Path, s *corev3.SubstitutionFormatString, o Options, errs *config.Errors,
) *Substitution {
	out, err := CompileSubstitution(s, o)
	errs.Wrap(p, err)
	return out
}

// DefaultAccessLog is Envoy's access log line.
const DefaultAccessLog = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" " +
	"%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% " +
	"%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" " +
	"\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n"

// formatters are the extensions that may be listed, by the type of their empty message, and the
// commands that they allow.
func formatters() map[string][]string {
	return map[string][]string{
		"type.googleapis.com/envoy.extensions.formatter.req_without_query.v3.ReqWithoutQuery": {"REQ_WITHOUT_QUERY"},
		// Built in nowadays; listing it stays allowed.
		"type.googleapis.com/envoy.extensions.formatter.metadata.v3.Metadata": nil,
	}
}

// CompileSubstitution compiles a SubstitutionFormatString; its omit_empty_values and formatters are
// added to o. Files and environment variables that it names are read now. The error joins all that
// is wrong, each with its field's path.
func CompileSubstitution(s *corev3.SubstitutionFormatString, o Options) (*Substitution, error) {
	var errs config.Errors
	substitutionFields.Check(nil, s, &errs)
	o.OmitEmpty = o.OmitEmpty || s.GetOmitEmptyValues()
	for i, f := range s.GetFormatters() {
		at := config.Field("formatters").Index(i)
		extensionFields.Check(at, f, &errs)
		commands, ok := formatters()[f.GetTypedConfig().GetTypeUrl()]
		switch {
		case !ok:
			errs.Addf(at.Field("typed_config"), "formatter %s is not supported", config.TypeName(f.GetTypedConfig()))
		case len(f.GetTypedConfig().GetValue()) > 0:
			errs.Add(at.Field("typed_config"), "has unknown fields")
		}
		o.Extensions = append(slices.Clip(o.Extensions), commands...)
	}
	out := &Substitution{contentType: "text/plain"}
	switch f := s.GetFormat().(type) {
	case *corev3.SubstitutionFormatString_TextFormat:
		out.Output = compileText(config.Field("text_format"), f.TextFormat, o, &errs)
	case *corev3.SubstitutionFormatString_TextFormatSource:
		at := config.Field("text_format_source")
		if text, ok := config.ReadDataSource(at, f.TextFormatSource, maxFormatBytes, &errs); ok {
			out.Output = compileText(at, string(text), o, &errs)
		}
	case *corev3.SubstitutionFormatString_JsonFormat:
		v, err := CompileJSON(f.JsonFormat, o)
		errs.Wrap(nil, err)
		out.Output = v
		out.contentType = "application/json"
	default:
		errs.Add(config.Field("format"), "is required")
	}
	if ct := s.GetContentType(); ct != "" {
		out.contentType = ct
	}
	if err := errs.Err(); err != nil {
		return nil, err
	}
	return out, nil
}

// maxFormatBytes bounds a format that is read from a file.
const maxFormatBytes = 1 << 20

func compileText(p *config.Path, text string, o Options, errs *config.Errors) Output {
	f, err := Compile(text, o)
	if err != nil {
		errs.Addf(p, "%w", err)
		return nil
	}
	return f
}
