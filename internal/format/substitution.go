package format

import (
	"errors"
	"fmt"
	"os"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"sidecar/api/stream"
)

// Output is a compiled text or JSON format.
type Output interface {
	// Append appends the formatted text to dst; the record is read only during the call.
	Append(dst []byte, in *stream.Info) []byte
}

// Substitution is a compiled SubstitutionFormatString.
type Substitution struct {
	Output
	// ContentType is what the message sets, else text/plain or application/json by the kind of format.
	ContentType string
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
// added to o. Files and environment variables that it names are read now. The error joins all that is
// wrong, each with its field's path.
func CompileSubstitution(s *corev3.SubstitutionFormatString, o Options) (*Substitution, error) {
	var errs []error
	o.OmitEmpty = o.OmitEmpty || s.GetOmitEmptyValues()
	for i, f := range s.GetFormatters() {
		commands, ok := formatters()[f.GetTypedConfig().GetTypeUrl()]
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("formatters[%d]: %q is not supported", i, f.GetName()))
		case len(f.GetTypedConfig().GetValue()) > 0:
			errs = append(errs, fmt.Errorf("formatters[%d].typed_config: unknown fields", i))
		}
		o.Extensions = append(o.Extensions, commands...)
	}
	out := &Substitution{ContentType: "text/plain"}
	switch f := s.GetFormat().(type) {
	case *corev3.SubstitutionFormatString_TextFormat:
		v, err := Compile(f.TextFormat, o)
		out.Output, errs = v, append(errs, at("text_format", err))
	case *corev3.SubstitutionFormatString_TextFormatSource:
		text, err := readSource(f.TextFormatSource, o.Getenv)
		if err != nil {
			errs = append(errs, at("text_format_source", err))
			break
		}
		v, err := Compile(text, o)
		out.Output, errs = v, append(errs, at("text_format_source", err))
	case *corev3.SubstitutionFormatString_JsonFormat:
		v, err := CompileJSON(f.JsonFormat, o)
		out.Output, errs = v, append(errs, err)
		out.ContentType = "application/json"
	default:
		errs = append(errs, errors.New("format: is required"))
	}
	if ct := s.GetContentType(); ct != "" {
		out.ContentType = ct
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return out, nil
}

func at(path string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", path, err)
}

// readSource returns the text of a DataSource.
func readSource(d *corev3.DataSource, getenv func(string) (string, bool)) (string, error) {
	if d.GetWatchedDirectory() != nil {
		return "", errors.New("watched_directory: is not supported here")
	}
	switch s := d.GetSpecifier().(type) {
	case *corev3.DataSource_InlineString:
		return s.InlineString, nil
	case *corev3.DataSource_InlineBytes:
		return string(s.InlineBytes), nil
	case *corev3.DataSource_Filename:
		b, err := os.ReadFile(s.Filename)
		return string(b), at("filename", err)
	case *corev3.DataSource_EnvironmentVariable:
		if getenv != nil {
			if v, ok := getenv(s.EnvironmentVariable); ok {
				return v, nil
			}
		}
		return "", fmt.Errorf("environment_variable: %q doesn't exist", s.EnvironmentVariable)
	}
	return "", errors.New("specifier: is required")
}
