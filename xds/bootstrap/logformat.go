package bootstrap

import (
	"bytes"
	"encoding/json"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"

	"sidecar/internal/config"
)

var logConfigFields = config.Fields[*bootstrapv3.Bootstrap_ApplicationLogConfig]{Used: "log_format"}

var logFormatFields = config.Fields[*bootstrapv3.Bootstrap_ApplicationLogConfig_LogFormat]{
	Used: "json_format text_format",
}

// logFormat gives the pattern for log lines, empty if there is none.
func logFormat(msg *bootstrapv3.Bootstrap_ApplicationLogConfig, in *Input, errs *config.Errors) string {
	path := config.Field("application_log_config")
	logConfigFields.Check(path, msg, errs)
	format := msg.GetLogFormat()
	if format == nil {
		return ""
	}
	path = path.Field("log_format")
	logFormatFields.Check(path, format, errs)
	if in.LogFormatSet {
		errs.Add(path, "Only one of ApplicationLogConfig.log_format or CLI option --log-format can be specified.")
	}
	if format.GetJsonFormat() == nil {
		return format.GetTextFormat()
	}
	path = path.Field("json_format")
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // would write < as \u003c, which means the same and reads worse
	if err := enc.Encode(format.GetJsonFormat().AsMap()); err != nil {
		errs.Addf(path, "%w", err)
		return ""
	}
	pattern := strings.TrimSuffix(b.String(), "\n")
	for _, flag := range []string{"%v", "%_"} {
		// They would put a message into a JSON string without escaping it; %j does.
		if strings.Contains(strings.ReplaceAll(pattern, "%%", ""), flag) {
			errs.Addf(path, "Usage of %s is unavailable for JSON log formats", flag)
		}
	}
	return pattern
}
