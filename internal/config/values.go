package config

import (
	"fmt"
	"net/netip"
	"os"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Value reads a wrapper (BoolValue, UInt32Value, ...): what is in it, or def where none is set.
func Value[T any, W interface {
	comparable
	GetValue() T
}](w W, def T) T {
	var unset W
	if w == unset {
		return def
	}
	return w.GetValue()
}

// Duration reads a duration, def where none is set. A negative one, or one that isn't valid or
// doesn't fit (292 years), is reported and read as def.
func Duration(p *Path, d *durationpb.Duration, def time.Duration, errs *Errors) time.Duration {
	if d == nil {
		return def
	}
	if err := d.CheckValid(); err != nil {
		errs.Add(p, "is not a valid duration")
		return def
	}
	out := d.AsDuration()
	if out < 0 {
		errs.Addf(p, "must not be negative: %s", out)
		return def
	}
	if out.Truncate(time.Second) != time.Duration(d.GetSeconds())*time.Second || d.GetSeconds() > int64(maxDuration/time.Second) {
		errs.Addf(p, "is too long: %d seconds", d.GetSeconds())
		return def
	}
	return out
}

const maxDuration = time.Duration(1<<63 - 1)

// CIDRFields are those of the message that Prefix reads.
//
//nolint:gochecknoglobals // immutable table
var CIDRFields = Fields[*corev3.CidrRange]{Used: "address_prefix prefix_len"}

// Prefix reads a CidrRange; a mapped IPv4 address is a plain one, and a length that is too great for
// the address is the greatest (Network::Address::CidrRange::create). The zero Prefix, of a range that is
// wrong, has no address in it.
func Prefix(p *Path, m *corev3.CidrRange, errs *Errors) netip.Prefix {
	CIDRFields.Check(p, m, errs)
	a, err := netip.ParseAddr(m.GetAddressPrefix())
	if err != nil {
		errs.Addf(p.Field("address_prefix"), "%w", err)
		return netip.Prefix{}
	}
	a = a.Unmap()
	out, err := a.Prefix(min(int(m.GetPrefixLen().GetValue()), a.BitLen()))
	if err != nil {
		errs.Addf(p.Field("prefix_len"), "%w", err)
	}
	return out
}

// Fraction is a share of things, as a FractionalPercent says it: Numerator of Denominator.
type Fraction struct {
	Numerator, Denominator uint32
}

// Hit tells whether the thing with this random number is in the share.
func (f Fraction) Hit(random uint64) bool {
	return f.Denominator != 0 && random%uint64(f.Denominator) < uint64(f.Numerator)
}

// RuntimeFraction is a share that a key of the runtime may change.
type RuntimeFraction struct {
	Default Fraction
	Key     string
	// Lookup reads the runtime; nil: there is none.
	Lookup func(key string) (Fraction, bool)
}

// RuntimeFractionFields are those of the message that CompileRuntimeFraction reads.
//
//nolint:gochecknoglobals // immutable table
var RuntimeFractionFields = Fields[*corev3.RuntimeFractionalPercent]{Used: "default_value runtime_key"}

// CompileRuntimeFraction reads a RuntimeFractionalPercent; def where it has no default_value.
func CompileRuntimeFraction(p *Path, m *corev3.RuntimeFractionalPercent, def Fraction,
	lookup func(key string) (Fraction, bool), errs *Errors,
) RuntimeFraction {
	RuntimeFractionFields.Check(p, m, errs)
	return RuntimeFraction{
		Default: FractionalPercent(p.Field("default_value"), m.GetDefaultValue(), def, errs),
		Key:     m.GetRuntimeKey(), Lookup: lookup,
	}
}

// Now is the share at the moment.
func (f *RuntimeFraction) Now() Fraction {
	if f.Key != "" && f.Lookup != nil {
		if v, ok := f.Lookup(f.Key); ok {
			return v
		}
	}
	return f.Default
}

// Hit tells whether the thing with this random number is in the share.
func (f *RuntimeFraction) Hit(random uint64) bool { return f.Now().Hit(random) }

// FractionalPercent reads a share of a hundred, ten thousand or a million; def where none is set.
func FractionalPercent(p *Path, f *typev3.FractionalPercent, def Fraction, errs *Errors) Fraction {
	if f == nil {
		return def
	}
	switch f.GetDenominator() {
	case typev3.FractionalPercent_HUNDRED:
		return Fraction{f.GetNumerator(), 100}
	case typev3.FractionalPercent_TEN_THOUSAND:
		return Fraction{f.GetNumerator(), 10_000}
	case typev3.FractionalPercent_MILLION:
		return Fraction{f.GetNumerator(), 1_000_000}
	}
	errs.Addf(p.Field("denominator"), "unknown value %d", f.GetDenominator())
	return def
}

// Percent reads a percentage from 0 to 100, def where none is set.
func Percent(p *Path, v *typev3.Percent, def float64, errs *Errors) float64 {
	if v == nil {
		return def
	}
	if x := v.GetValue(); x >= 0 && x <= 100 { // false for NaN
		return x
	}
	errs.Addf(p, "must be from 0 to 100, not %v", v.GetValue())
	return def
}

// DataSourceFields accounts for DataSource wherever [ReadDataSource] reads it.
var DataSourceFields = Fields[*corev3.DataSource]{
	Used:    "filename inline_bytes inline_string environment_variable",
	Refused: "watched_directory",
}

// ReadDataSource gives the bytes that a DataSource stands for, at most limit of them: from the
// message, a file (read once, now) or the environment. It returns false after reporting why it
// can't. A source that is nil or empty is an error: ask before, where one is optional.
func ReadDataSource(p *Path, ds *corev3.DataSource, limit int64, errs *Errors) (data []byte, ok bool) {
	DataSourceFields.Check(p, ds, errs)
	var err error
	switch s := ds.GetSpecifier().(type) {
	case *corev3.DataSource_Filename:
		p = p.Field("filename")
		if data, err = readFile(s.Filename, limit); err != nil {
			err = fmt.Errorf("%s: %w", s.Filename, err)
		}
	case *corev3.DataSource_InlineBytes:
		p, data = p.Field("inline_bytes"), s.InlineBytes
	case *corev3.DataSource_InlineString:
		p, data = p.Field("inline_string"), []byte(s.InlineString)
	case *corev3.DataSource_EnvironmentVariable:
		p = p.Field("environment_variable")
		value, set := os.LookupEnv(s.EnvironmentVariable)
		if !set {
			err = fmt.Errorf("environment variable %s doesn't exist", s.EnvironmentVariable)
		}
		data = []byte(value)
	default:
		errs.Add(p, "needs one of filename, inline_bytes, inline_string, environment_variable")
		return nil, false
	}
	switch {
	case err != nil:
		errs.Addf(p, "%w", err)
	case int64(len(data)) > limit:
		errs.Addf(p, "is larger than %d bytes", limit)
	case len(data) == 0:
		errs.Add(p, "is empty")
	default:
		return data, true
	}
	return nil, false
}
