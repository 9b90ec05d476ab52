package mutate

import (
	"errors"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/config/configtest"
)

func TestEveryFieldIsAccountedFor(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, nil, OptionFields, ValueFields)
}

// fake is a format of one header: "%name%".
type fake string

func (f fake) Append(dst []byte, info *stream.Info) []byte {
	v, _ := info.Request.Get(string(f))
	return append(dst, v...)
}

func (f fake) Constant() (string, bool) { return "%", f == "" }

func compileFake(text string) (Formatter, error) {
	if text == "%bad%" {
		return nil, errors.New("bad format")
	}
	return fake(strings.Trim(text, "%")), nil
}

func option(key, value string, action corev3.HeaderValueOption_HeaderAppendAction) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header: &corev3.HeaderValue{Key: key, Value: value}, AppendAction: action,
	}
}

const (
	appendIt    = corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
	ifAbsent    = corev3.HeaderValueOption_ADD_IF_ABSENT
	overwrite   = corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
	ifOverwrite = corev3.HeaderValueOption_OVERWRITE_IF_EXISTS
)

func TestApply(t *testing.T) {
	t.Parallel()
	keepEmpty := option("k", "", appendIt)
	keepEmpty.KeepEmptyValue = true
	deprecated := option("a", "2", appendIt)
	deprecated.Append = wrapperspb.Bool(false) //nolint:staticcheck // old control planes send it
	for name, c := range map[string]struct {
		add    []*corev3.HeaderValueOption
		remove []string
		want   []string
	}{
		"append":                           {[]*corev3.HeaderValueOption{option("A", "2", appendIt)}, nil, []string{"a: 1", "b: x", "user-agent: u", "a: 2"}},
		"append to what is kept once":      {[]*corev3.HeaderValueOption{option("User-Agent", "2", appendIt)}, nil, []string{"a: 1", "b: x", "user-agent: u,2"}},
		"absent":                           {[]*corev3.HeaderValueOption{option("a", "2", ifAbsent), option("n", "1", ifAbsent), option("n", "2", ifAbsent)}, nil, []string{"a: 1", "b: x", "user-agent: u", "n: 1", "n: 2"}},
		"overwritten moves to the end":     {[]*corev3.HeaderValueOption{option("a", "2", overwrite), option("n", "3", overwrite)}, nil, []string{"b: x", "user-agent: u", "a: 2", "n: 3"}},
		"overwrite only what is there":     {[]*corev3.HeaderValueOption{option("a", "2", ifOverwrite), option("n", "3", ifOverwrite)}, nil, []string{"b: x", "user-agent: u", "a: 2"}},
		"deprecated append":                {[]*corev3.HeaderValueOption{deprecated}, nil, []string{"b: x", "user-agent: u", "a: 2"}},
		"overwritten before added":         {[]*corev3.HeaderValueOption{option("a", "added", appendIt), option("a", "over", overwrite)}, nil, []string{"b: x", "user-agent: u", "a: over", "a: added"}},
		"values from before the change":    {[]*corev3.HeaderValueOption{option("a", "%b%", overwrite), option("n", "%a%", appendIt)}, nil, []string{"b: x", "user-agent: u", "a: x", "n: 1"}},
		"values from after the removal":    {[]*corev3.HeaderValueOption{option("n", "%a%", appendIt), option("a", "new", ifAbsent)}, []string{"A"}, []string{"b: x", "user-agent: u", "a: new"}},
		"an empty value isn't added":       {[]*corev3.HeaderValueOption{option("n", "%none%", overwrite), option("a", "%none%", overwrite)}, nil, []string{"a: 1", "b: x", "user-agent: u"}},
		"unless it is to be kept":          {[]*corev3.HeaderValueOption{keepEmpty}, nil, []string{"a: 1", "b: x", "user-agent: u", "k: "}},
		"a format of constant text":        {[]*corev3.HeaderValueOption{option("n", "%%", appendIt)}, nil, []string{"a: 1", "b: x", "user-agent: u", "n: %"}},
		"removal of what is known by name": {nil, []string{"User-Agent", "none", "a"}, []string{"b: x"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var errs config.Errors
			hs := Compile(nil, "request_headers", c.add, c.remove, compileFake, &errs)
			if errs.Err() != nil {
				t.Fatal(errs.Err())
			}
			m := &header.Map{}
			m.Add("a", "1")
			m.Add("b", "x")
			m.Add("user-agent", "u")
			hs.Apply(m, &stream.Info{Request: m})
			var got []string
			for i := range m.Len() {
				name, value := m.At(i)
				got = append(got, name+": "+value)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("headers (-want +got):\n%s", d)
			}
		})
	}
}

func TestNothingToDo(t *testing.T) {
	t.Parallel()
	hs := Compile(nil, "request_headers", nil, nil, compileFake, &config.Errors{})
	if hs != nil {
		t.Error("there is something to do")
	}
	hs.Apply(&header.Map{}, nil)
}

func TestErrors(t *testing.T) {
	t.Parallel()
	both := option("a", "b", overwrite)
	both.Append = wrapperspb.Bool(true) //nolint:staticcheck // old control planes send it
	var errs config.Errors
	Compile(config.Field("route"), "request_headers", []*corev3.HeaderValueOption{
		option(":path", "", appendIt), option("", "x", appendIt), both, option("x", "%bad%", appendIt), option("x", "y", 17),
	}, []string{":path", "HOST", ""}, compileFake, &errs)
	want := strings.Join([]string{
		"route.request_headers_to_remove[0]: :-prefixed or host headers may not be removed",
		"route.request_headers_to_remove[1]: :-prefixed or host headers may not be removed",
		"route.request_headers_to_remove[2]: :-prefixed or host headers may not be removed",
		"route.request_headers_to_add[0].header: :-prefixed or host headers may not be modified",
		"route.request_headers_to_add[1].header: key is required",
		"route.request_headers_to_add[2].header: Both append and append_action are set and it's not allowed",
		"route.request_headers_to_add[3].header: bad format",
		"route.request_headers_to_add[4].header: append_action: unknown value 17",
	}, "\n")
	if d := cmp.Diff(want, errs.Err().Error()); d != "" {
		t.Errorf("errors (-want +got):\n%s", d)
	}
}

func TestTranslate(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`%UPSTREAM_METADATA(["ns","k"])% %PER_REQUEST_STATE(x.y)%`: `%UPSTREAM_METADATA(ns:k)% %FILTER_STATE(x.y:PLAIN)%`,
		`%DYNAMIC_METADATA( [ "a" , "b", "c" ] )%!`:                `%DYNAMIC_METADATA(a:b:c)%!`,
		`%DYNAMIC_METADATA(a:b)%`:                                  `%DYNAMIC_METADATA(a:b)%`,
		`%DYNAMIC_METADATA([a])%`:                                  `%DYNAMIC_METADATA([a])%`,
		`%REQ(x)% [y]`:                                             `%REQ(x)% [y]`,
	} {
		if got := translate(in); got != want {
			t.Errorf("translate(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzTranslate(f *testing.F) {
	for _, s := range []string{
		`%UPSTREAM_METADATA(["ns","k"])%`, `%DYNAMIC_METADATA([""])%`, `%PER_REQUEST_STATE()%`,
		`%PER_REQUEST_STATE(`, `_METADATA([`, `%DYNAMIC_METADATA(["a]"])%`, `%UPSTREAM_METADATA(["\u0000"])%`, "",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := translate(s)
		if !strings.Contains(s, "_METADATA(") && !strings.Contains(s, "PER_REQUEST_STATE(") && got != s {
			t.Errorf("%q became %q", s, got)
		}
	})
}
