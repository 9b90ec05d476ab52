package format

import (
	"encoding/json"
	"errors"
	"strings"

	"sidecar/api/stream"
)

// makeCoalesce makes COALESCE({"operators":[...]}): the first operator whose value is known. Each
// is a command's name or {"command":"REQ","param":"x","max_length":10}.
func makeCoalesce(param string, o *Options) (op, error) {
	var config struct {
		Operators []json.RawMessage `json:"operators"`
	}
	if err := decodeStrictly(param, &config); err != nil {
		return op{}, errorf("COALESCE: failed to parse JSON configuration: %v", err)
	}
	if len(config.Operators) == 0 {
		return op{}, Error("COALESCE requires at least one operator")
	}
	ops := make([]op, len(config.Operators))
	for i, raw := range config.Operators {
		c, err := coalesced(string(raw))
		if err != nil {
			return op{}, errorf("COALESCE: operators[%d]: %v", i, err)
		}
		if ops[i], err = c.compile(o); err != nil {
			return op{}, errorf("COALESCE: operators[%d]: %v", i, err)
		}
	}
	return coalesceOp(ops), nil
}

func coalesced(raw string) (command, error) {
	c := command{max: -1}
	if strings.HasPrefix(raw, `"`) {
		err := json.Unmarshal([]byte(raw), &c.name)
		return c, err
	}
	var entry struct {
		Command   string `json:"command"`
		Param     string `json:"param"`
		MaxLength *int   `json:"max_length"`
	}
	if err := decodeStrictly(raw, &entry); err != nil {
		return c, err
	}
	c.name, c.param = entry.Command, entry.Param
	if entry.MaxLength != nil {
		if *entry.MaxLength <= 0 {
			return c, Error("max_length must be a positive integer")
		}
		c.max, c.hasMax = *entry.MaxLength, true
	}
	if c.name == "COALESCE" {
		return c, Error("COALESCE cannot be nested")
	}
	return c, nil
}

func decodeStrictly(s string, v any) error {
	d := json.NewDecoder(strings.NewReader(s))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if d.More() {
		return errors.New("text after the JSON value")
	}
	return nil
}

func coalesceOp(ops []op) op {
	return op{
		text: func(dst []byte, in *stream.Info) ([]byte, bool) {
			n := len(dst)
			for i := range ops {
				out, ok := ops[i].text(dst, in)
				if !ok {
					dst = out[:n]
					continue
				}
				if m := ops[i].max; m >= 0 && len(out)-n > m {
					out = out[:n+m]
				}
				return out, true
			}
			return dst, false
		},
		json: func(dst []byte, in *stream.Info) ([]byte, bool) {
			n := len(dst)
			for i := range ops {
				out, ok := ops[i].appendJSON(dst, in)
				if ok {
					return out, true
				}
				dst = out[:n]
			}
			return dst, false
		},
	}
}
