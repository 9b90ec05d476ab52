package accesslog

import (
	"context"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"sidecar/api/filter"
	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/format"
)

var (
	accessLogFields = config.Fields[*accesslogv3.AccessLog]{
		Used: "filter typed_config",
		NoOp: map[string]string{"name": "the type of typed_config decides; Envoy reads the name no more either"},
	}
	fileFields = config.Fields[*filev3.FileAccessLog]{
		Used: "path format json_format typed_json_format log_format",
	}
	stdoutFields = config.Fields[*streamv3.StdoutAccessLog]{Used: "log_format"}
	stderrFields = config.Fields[*streamv3.StderrAccessLog]{Used: "log_format"}
)

// Options are what access loggers are compiled with.
type Options struct {
	// Sinks holds the files. They are opened at compile time: a path that can't be opened is an
	// error of the configuration, as in Envoy.
	Sinks  *Sinks
	Format format.Options
	// Other compiles a logger that this package doesn't know, by the type of its configuration; false if
	// there is none. nil: none is supported. What it returns may be a filter.Warmer, Awaiter and Retirer,
	// and so is the Logger then.
	Other func(p *config.Path, a *anypb.Any, errs *config.Errors) (Log, bool)
	// Runtime looks a number up in the runtime; nil: none is set.
	Runtime func(key string) (uint64, bool)
}

// Log takes finished streams; it must not block.
type Log interface {
	Log(in *stream.Info)
}

// Logger writes one line for each finished stream that its filter lets through. It is immutable and
// may be used from any goroutine.
type Logger struct {
	filter Filter // nil: all
	format format.Output
	sink   *sink
	other  Log // instead of the two before
}

// Log formats and queues a line. It doesn't block and doesn't allocate.
func (l *Logger) Log(in *stream.Info) {
	switch {
	case l.filter != nil && !l.filter(in):
	case l.other != nil:
		l.other.Log(in)
	default:
		l.sink.line(l.format, in)
	}
}

// Warm implements filter.Warmer.
func (l *Logger) Warm(ctx context.Context) error {
	if w, ok := l.other.(filter.Warmer); ok {
		return w.Warm(ctx)
	}
	return nil
}

// Await implements filter.Awaiter.
func (l *Logger) Await(ctx context.Context) {
	if a, ok := l.other.(filter.Awaiter); ok {
		a.Await(ctx)
	}
}

// Retire implements filter.Retirer.
func (l *Logger) Retire() {
	if r, ok := l.other.(filter.Retirer); ok {
		r.Retire()
	}
}

// Compile compiles access loggers. What is wrong is reported at p and below; the result is then not
// to be used.
func Compile(p *config.Path, logs []*accesslogv3.AccessLog, o *Options, errs *config.Errors) []*Logger {
	var out []*Logger
	own := *o
	own.Format.InLog = true
	for i, m := range logs {
		if l := compileLogger(p.Index(i), m, &own, errs); l != nil {
			out = append(out, l)
		}
	}
	return out
}

// CompilePath makes a logger that writes lines of the default format to a file, as the admin server's
// access_log_path asks for.
func CompilePath(p *config.Path, path string, o *Options, errs *config.Errors) *Logger {
	own := *o
	own.Format.InLog = true
	l := &Logger{format: defaultFormat(p, &own, errs)}
	sink, err := o.Sinks.open(path)
	if err != nil {
		errs.Addf(p, "%w", err)
		return nil
	}
	l.sink = sink
	return l
}

func compileLogger(p *config.Path, m *accesslogv3.AccessLog, o *Options, errs *config.Errors) *Logger {
	before := errs.Len()
	accessLogFields.Check(p, m, errs)
	l := &Logger{}
	if m.GetFilter() != nil {
		l.filter = CompileFilter(p.Field("filter"), m.GetFilter(), o, errs)
	}
	at := p.Field("typed_config")
	path := ""
	switch name := config.TypeName(m.GetTypedConfig()); name {
	case "envoy.extensions.access_loggers.file.v3.FileAccessLog":
		if c, ok := config.OpenAs[*filev3.FileAccessLog](at, m.GetTypedConfig(), errs); ok {
			fileFields.Check(at, c, errs)
			path, l.format = c.GetPath(), fileFormat(at, c, o, errs)
		}
	case "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog":
		if c, ok := config.OpenAs[*streamv3.StdoutAccessLog](at, m.GetTypedConfig(), errs); ok {
			stdoutFields.Check(at, c, errs)
			path, l.format = stdoutPath, logFormat(at, c.GetLogFormat(), o, errs)
		}
	case "envoy.extensions.access_loggers.stream.v3.StderrAccessLog":
		if c, ok := config.OpenAs[*streamv3.StderrAccessLog](at, m.GetTypedConfig(), errs); ok {
			stderrFields.Check(at, c, errs)
			path, l.format = stderrPath, logFormat(at, c.GetLogFormat(), o, errs)
		}
	case "":
		errs.Add(at, "is required")
	default:
		var known bool
		if o.Other != nil {
			l.other, known = o.Other(at, m.GetTypedConfig(), errs)
		}
		if !known {
			errs.Addf(at, "access logger %s is not supported", name)
		}
	}
	if errs.Len() > before {
		return nil
	}
	if l.other != nil {
		return l
	}
	// Last, so that nothing is opened for a logger that is refused for something else.
	sink, err := o.Sinks.open(path)
	if err != nil {
		errs.Addf(at.Field("path"), "%w", err)
		return nil
	}
	l.sink = sink
	return l
}

// fileFormat compiles whichever of the four format fields is set.
func fileFormat(p *config.Path, c *filev3.FileAccessLog, o *Options, errs *config.Errors) format.Output {
	switch f := c.GetAccessLogFormat().(type) {
	case *filev3.FileAccessLog_Format:
		if f.Format == "" {
			return defaultFormat(p, o, errs)
		}
		return format.CompileAt(p, &corev3.SubstitutionFormatString{
			Format: &corev3.SubstitutionFormatString_TextFormat{TextFormat: f.Format},
		}, o.Format, errs)
	case *filev3.FileAccessLog_JsonFormat:
		return format.CompileAt(p, &corev3.SubstitutionFormatString{
			Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: f.JsonFormat},
		}, o.Format, errs)
	case *filev3.FileAccessLog_TypedJsonFormat:
		return format.CompileAt(p, &corev3.SubstitutionFormatString{
			Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: f.TypedJsonFormat},
		}, o.Format, errs)
	case *filev3.FileAccessLog_LogFormat:
		return format.CompileAt(p.Field("log_format"), f.LogFormat, o.Format, errs)
	}
	return defaultFormat(p, o, errs)
}

func logFormat(
	p *config.Path, f *corev3.SubstitutionFormatString, o *Options, errs *config.Errors,
) format.Output {
	if f == nil {
		return defaultFormat(p, o, errs)
	}
	return format.CompileAt(p.Field("log_format"), f, o.Format, errs)
}

func defaultFormat(p *config.Path, o *Options, errs *config.Errors) format.Output {
	f, err := format.Compile(format.DefaultAccessLog, o.Format)
	errs.Wrap(p, err)
	return f
}
