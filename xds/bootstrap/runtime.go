package bootstrap

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"sidecar/internal/config"
)

// RuntimeLayer is one layer of runtime values. A later layer wins over an earlier one.
type RuntimeLayer struct {
	Name string
	// Admin layers hold what POST /runtime_modify sets; they start empty. There is at most one.
	Admin bool
	// Values by key, such as "envoy.reloadable_features.x". Keys that nobody reads are kept: Envoy
	// has switches for features that are not here, and takes any key.
	Values map[string]RuntimeValue
}

// RuntimeValue is what one key is set to: Text always, and whatever else the text can be read as.
type RuntimeValue struct {
	Text     string
	Number   float64 // if IsNumber
	Bool     bool    // if IsBool
	Fraction config.Fraction

	IsNumber, IsBool, IsFraction bool
}

var runtimeFields = config.Fields[*bootstrapv3.LayeredRuntime]{Used: "layers"}

var layerFields = config.Fields[*bootstrapv3.RuntimeLayer]{
	Used:    "name static_layer admin_layer",
	Refused: "disk_layer rtds_layer",
}

var adminLayerFields = config.Fields[*bootstrapv3.RuntimeLayer_AdminLayer]{}

func runtimeLayers(msg *bootstrapv3.LayeredRuntime, errs *config.Errors) []RuntimeLayer {
	runtimeFields.Check(config.Field("layered_runtime"), msg, errs)
	out := make([]RuntimeLayer, 0, len(msg.GetLayers()))
	seen, admins := map[string]bool{}, 0
	for i, layer := range msg.GetLayers() {
		path := config.Field("layered_runtime.layers").Index(i)
		layerFields.Check(path, layer, errs)
		if seen[layer.GetName()] {
			errs.Addf(path.Field("name"), "Duplicate layer name: %s", layer.GetName())
		}
		seen[layer.GetName()] = true
		compiled := RuntimeLayer{Name: layer.GetName(), Values: map[string]RuntimeValue{}}
		if layer.GetAdminLayer() != nil {
			compiled.Admin = true
			if admins++; admins > 1 {
				errs.Add(path.Field("admin_layer"), "Too many admin layers specified in LayeredRuntime, at most one may be specified")
			}
		}
		flatten(path.Field("static_layer"), "", layer.GetStaticLayer(), compiled.Values, errs)
		out = append(out, compiled)
	}
	return out
}

// flatten gives each value the key that its place in the tree spells: {a: {b: 1}} and {a.b: 1} are
// one.
func flatten(path *config.Path, prefix string, s *structpb.Struct, into map[string]RuntimeValue, errs *config.Errors) {
	for _, name := range sortedKeys(s.GetFields()) {
		key, at := name, path.Field(name)
		if prefix != "" {
			key = prefix + "." + name
		}
		switch k := s.GetFields()[name].GetKind().(type) {
		case *structpb.Value_StructValue:
			if fraction, ok := fractionOf(k.StructValue); ok {
				into[key] = fraction
				continue
			}
			flatten(at, key, k.StructValue, into, errs)
		case *structpb.Value_BoolValue:
			into[key] = RuntimeValue{Text: strconv.FormatBool(k.BoolValue), Bool: k.BoolValue, IsBool: true}
		case *structpb.Value_NumberValue:
			into[key] = RuntimeValue{
				Text: strconv.FormatFloat(k.NumberValue, 'f', -1, 64), Number: k.NumberValue, IsNumber: true,
			}
		case *structpb.Value_StringValue:
			into[key] = parseValue(k.StringValue)
		default:
			errs.Addf(at, "Invalid runtime entry value for %s", key)
		}
	}
}

// parseValue reads a text as whatever it can be, as Envoy does with the files of a runtime
// directory.
func parseValue(s string) RuntimeValue {
	v := RuntimeValue{Text: s}
	trimmed := strings.TrimSpace(s)
	switch strings.ToLower(trimmed) {
	case "true":
		v.Bool, v.IsBool = true, true
	case "false":
		v.IsBool = true
	}
	if f, err := strconv.ParseFloat(trimmed, 64); err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
		v.Number, v.IsNumber = f, true
	}
	return v
}

// fractionOf reads {numerator: 5, denominator: MILLION}; a Struct with neither is a branch of the
// tree.
func fractionOf(s *structpb.Struct) (RuntimeValue, bool) {
	numerator, hasNumerator := s.GetFields()["numerator"]
	denominator, hasDenominator := s.GetFields()["denominator"]
	if !hasNumerator && !hasDenominator {
		return RuntimeValue{}, false
	}
	name := denominator.GetStringValue()
	if !hasDenominator {
		name = "HUNDRED"
	}
	d, known := typev3.FractionalPercent_DenominatorType_value[name]
	n := numerator.GetNumberValue()
	if !known || n < 0 || n != math.Trunc(n) || n > math.MaxUint32 {
		return RuntimeValue{}, false
	}
	var errs config.Errors
	percent := &typev3.FractionalPercent{
		Numerator: uint32(n), Denominator: typev3.FractionalPercent_DenominatorType(d),
	}
	text, err := json.Marshal(map[string]any{"numerator": uint32(n), "denominator": name})
	if err != nil {
		return RuntimeValue{}, false
	}
	return RuntimeValue{
		Text: string(text), IsFraction: true,
		Fraction: config.FractionalPercent(nil, percent, config.Fraction{}, &errs),
	}, true
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
