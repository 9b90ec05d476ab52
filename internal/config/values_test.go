package config

import (
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func errText(errs *Errors) string {
	if err := errs.Err(); err != nil {
		return err.Error()
	}
	return ""
}

func TestValue(t *testing.T) {
	t.Parallel()
	if Value(wrapperspb.Bool(false), true) {
		t.Error("a wrapper that is set loses to the default")
	}
	if got := Value((*wrapperspb.UInt32Value)(nil), 7); got != 7 {
		t.Errorf("got %d", got)
	}
	if got := Value(wrapperspb.UInt32(0), 7); got != 0 {
		t.Errorf("got %d", got)
	}
}

func TestDuration(t *testing.T) {
	t.Parallel()
	const def = 42 * time.Second
	tests := []struct {
		name string
		in   *durationpb.Duration
		want time.Duration
		err  string
	}{
		{"none", nil, def, ""},
		{"zero", &durationpb.Duration{}, 0, ""},
		{"some", &durationpb.Duration{Seconds: 1, Nanos: 5}, time.Second + 5, ""},
		{"negative", &durationpb.Duration{Seconds: -1}, def, "d: must not be negative: -1s"},
		{"odd", &durationpb.Duration{Seconds: 1, Nanos: -1}, def, "d: is not a valid duration"},
		{"long", &durationpb.Duration{Seconds: 10_000_000_000}, def, "d: is too long: 10000000000 seconds"},
		{"longest", &durationpb.Duration{Seconds: 9_223_372_036}, 9_223_372_036 * time.Second, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var errs Errors
			if got := Duration(Field("d"), tt.in, def, &errs); got != tt.want || errText(&errs) != tt.err {
				t.Errorf("got %v, %v", got, errs.Err())
			}
		})
	}
}

func TestPercents(t *testing.T) {
	t.Parallel()
	var errs Errors
	def := Fraction{1, 100}
	for _, tt := range []struct {
		in   *typev3.FractionalPercent
		want Fraction
	}{
		{nil, def},
		{&typev3.FractionalPercent{Numerator: 3}, Fraction{3, 100}},
		{&typev3.FractionalPercent{Numerator: 3, Denominator: typev3.FractionalPercent_TEN_THOUSAND}, Fraction{3, 10_000}},
		{&typev3.FractionalPercent{Numerator: 3, Denominator: typev3.FractionalPercent_MILLION}, Fraction{3, 1_000_000}},
		{&typev3.FractionalPercent{Numerator: 3, Denominator: 9}, def},
	} {
		if got := FractionalPercent(Field("f"), tt.in, def, &errs); got != tt.want {
			t.Errorf("%v: %v", tt.in, got)
		}
	}
	if got := errText(&errs); got != "f.denominator: unknown value 9" {
		t.Error(got)
	}
	if f := (Fraction{5, 100}); !f.Hit(104) || f.Hit(105) || (Fraction{}).Hit(0) {
		t.Error("Hit")
	}
	errs = Errors{}
	for in, want := range map[float64]float64{0: 0, 100: 100, 12.5: 12.5, -1: 50, 101: 50, math.NaN(): 50} {
		if got := Percent(Field("p"), &typev3.Percent{Value: in}, 50, &errs); got != want {
			t.Errorf("%v: %v", in, got)
		}
	}
	if errs.Len() != 3 || Percent(nil, nil, 50, &errs) != 50 {
		t.Error(errs.Err())
	}
}

func TestReadDataSource(t *testing.T) {
	t.Setenv("CONFIG_TEST_SET", "value")
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	inFile := func(name string) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: name}}
	}
	env := func(name string) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_EnvironmentVariable{EnvironmentVariable: name}}
	}
	inline := func(s string) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: s}}
	}
	tests := []struct {
		name string
		in   *corev3.DataSource
		want string
		err  string
	}{
		{"file", inFile(file), "content", ""},
		{"no file", inFile("/no/such"), "", "d.filename: /no/such: no such file or directory"},
		{"environment", env("CONFIG_TEST_SET"), "value", ""},
		{"no environment", env("CONFIG_TEST_UNSET"), "", "d.environment_variable: environment variable CONFIG_TEST_UNSET doesn't exist"},
		{"string", inline("abc"), "abc", ""},
		{"bytes", &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: []byte("b")}}, "b", ""},
		{"empty", inline(""), "", "d.inline_string: is empty"},
		{"long", inline("12345678"), "", "d.inline_string: is larger than 7 bytes"},
		{"none", nil, "", "d: needs one of filename, inline_bytes, inline_string, environment_variable"},
		{
			"watched", &corev3.DataSource{Specifier: inline("x").Specifier, WatchedDirectory: &corev3.WatchedDirectory{Path: "x"}},
			"x", "d.watched_directory: is not supported",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var errs Errors
			got, _ := ReadDataSource(Field("d"), tt.in, 7, &errs)
			if string(got) != tt.want || errText(&errs) != tt.err {
				t.Errorf("got %q, %v", got, errs.Err())
			}
		})
	}
}
