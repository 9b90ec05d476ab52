package hcm

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"sidecar/api/filter"
	"sidecar/internal/config"
)

// CompileEntry opens the typed config of an HTTP filter and has the filter compile it. A nil config
// stands for an empty message, as in Envoy.
func CompileEntry(p *config.Path, e *filter.HTTPEntry, a *anypb.Any, c filter.Context,
	errs *config.Errors,
) any {
	m := proto.Clone(e.Config)
	if a != nil {
		opened, err := config.Open(a)
		if err != nil {
			errs.Wrap(p, err)
			return nil
		}
		if opened.ProtoReflect().Descriptor().FullName() != m.ProtoReflect().Descriptor().FullName() {
			errs.Addf(p, "holds a %s, not a %s", opened.ProtoReflect().Descriptor().FullName(),
				m.ProtoReflect().Descriptor().FullName())
			return nil
		}
		before := errs.Len()
		config.Validate(p, opened, errs)
		if errs.Len() > before {
			return nil
		}
		m = opened
	}
	made, err := e.Compile(m, c)
	errs.Wrap(p, err)
	return made
}
