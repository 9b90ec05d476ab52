package header

import (
	"fmt"
	"strings"
	"testing"
)

func text(m *Map) string {
	var out []string
	for i := range m.Len() {
		n, v := m.At(i)
		out = append(out, n+"="+v)
	}
	return strings.Join(out, " ")
}

func TestIDs(t *testing.T) {
	t.Parallel()
	for id := None + 1; id < numIDs; id++ {
		if names[id].name == "" {
			t.Fatalf("ID %d has no name", id)
		}
		if got := Lookup(id.String()); got != id {
			t.Errorf("%s is %d, not %d", id, got, id)
		}
		if id.String() != strings.ToLower(id.String()) {
			t.Errorf("%s is not lower-case", id)
		}
	}
	for _, name := range []string{"", "x", "x-none", "Host", ":"} {
		if id := Lookup(name); id != None {
			t.Errorf("%q is %s", name, id)
		}
	}
}

func TestMap(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do   func(m *Map)
		want string
	}{
		"inline headers are joined":   {func(m *Map) { m.Add("accept", "a"); m.AddRaw([]byte("ACCEPT"), []byte("b")) }, "accept=a,b"},
		"others are not":              {func(m *Map) { m.Add("x", "a"); m.Add("x", "b") }, "x=a x=b"},
		"set changes where it stands": {func(m *Map) { m.Add("x", "1"); m.Add("y", "2"); m.Add("x", "3"); m.Set("x", "4") }, "x=4 y=2"},
		"set adds":                    {func(m *Map) { m.Set("x", "1"); m.SetID(Path, "/") }, ":path=/ x=1"},
		"remove":                      {func(m *Map) { m.Add("x", "1"); m.Add("y", "2"); m.Add("x", "3"); m.Remove("x") }, "y=2"},
		"remove well-known":           {func(m *Map) { m.AddID(Accept, "1"); m.AddID(Path, "/"); m.RemoveID(Accept) }, ":path=/"},
		"remove some": {func(m *Map) {
			m.Add("x", "1")
			m.Add("y", "2")
			m.RemoveIf(func(_ ID, n, _ string) bool { return n == "x" })
		}, "y=2"},
		"concat of its own": {func(m *Map) { m.AddID(Via, "a"); m.SetConcat(Via, m.Value(Via), ", b") }, "via=a, b"},
		"concat of nothing": {func(m *Map) { m.SetConcat(Via, "", "") }, "via="},
		"static":            {func(m *Map) { m.AddStatic("x", "1"); m.AddStatic("accept", "a"); m.AddStatic("accept", "b") }, "x=1 accept=a,b"},
		"bytes":             {func(m *Map) { m.AddBytes("x", []byte("1")); m.SetBytes(Path, []byte("/")) }, ":path=/ x=1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var m Map
			c.do(&m)
			if got := text(&m); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestJoined(t *testing.T) {
	t.Parallel()
	var m Map
	m.Add("x", "1")
	m.Add("y", "2")
	if v, ok := m.Joined("x"); v != "1" || !ok {
		t.Error(v)
	}
	m.Add("x", "3")
	m.Add("x", "4")
	if v, ok := m.Joined("x"); v != "1,3,4" || !ok {
		t.Error(v)
	}
	if v, ok := m.Joined("z"); v != "" || ok {
		t.Error(v)
	}
}

// TestStringsOutliveChanges: what was returned holds until Reset, whatever is done to the map.
func TestStringsOutliveChanges(t *testing.T) {
	t.Parallel()
	var m Map
	m.Add("x", "value")
	got, _ := m.Get("x")
	for i := range 2000 {
		m.Set("x", fmt.Sprint(i))
		m.Add("y", "more and more")
	}
	m.Remove("x")
	if got != "value" {
		t.Errorf("%q", got)
	}
}

func TestReset(t *testing.T) {
	t.Parallel()
	var m Map
	m.KeepRawNames()
	m.AddRaw([]byte("X-A"), []byte(strings.Repeat("v", 3*arenaKeep)))
	m.Reset()
	if m.Len() != 0 || m.Bytes() != 0 || cap(m.arena) > arenaKeep {
		t.Errorf("%d fields, %d bytes, arena of %d", m.Len(), m.Bytes(), cap(m.arena))
	}
	m.AddRaw([]byte("X-B"), nil)
	if m.RawAt(0) != "x-b" {
		t.Error("remembers to keep raw names")
	}
}

func TestAllocs(t *testing.T) {
	var m Map
	name, value := []byte("X-Custom-Name"), []byte("value")
	run := func() {
		m.Reset()
		m.AddRaw([]byte("Host"), value)
		m.AddRaw(name, value)
		m.AddStatic(":status", "200")
		m.Set("x-custom-name", "other")
		m.SetID(Path, "/")
		m.RemoveID(Path)
	}
	run()
	if n := testing.AllocsPerRun(100, run); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// model is the same by the simplest means.
type model []struct{ name, value string }

func (m model) find(name string) int {
	for i := range m {
		if m[i].name == name {
			return i
		}
	}
	return -1
}

func (m model) add(name, value string) model {
	if id := Lookup(name); id != None && names[id].inline {
		if i := m.find(name); i >= 0 {
			m[i].value += "," + value
			return m
		}
	}
	return m.push(name, value)
}

func (m model) push(name, value string) model {
	at := len(m)
	if strings.HasPrefix(name, ":") {
		for at = 0; at < len(m) && strings.HasPrefix(m[at].name, ":"); at++ {
		}
	}
	out := append(model{}, m[:at]...)
	out = append(out, struct{ name, value string }{name, value})
	return append(out, m[at:]...)
}

func (m model) remove(name string, from int) model {
	var out model
	for i := range m {
		if i < from || m[i].name != name {
			out = append(out, m[i])
		}
	}
	return out
}

func (m model) set(name, value string) model {
	i := m.find(name)
	if i < 0 {
		return m.push(name, value)
	}
	m[i].value = value
	return m.remove(name, i+1)
}

var fuzzNames = []string{"x", "y", "x-long-name", "accept", "cookie", ":path", ":status", "via", ":custom", "content-length"}

// FuzzMap plays operations on a map and on the model.
func FuzzMap(f *testing.F) {
	for _, s := range []string{
		"", "\x00\x01a", "\x00\x01a\x00\x01b\x02\x01c", "\x03\x05/\x01\x05x", "\x00\x08v\x03\x08\x00\x00\x08w",
		"\x00\x00a\x04\x00\x00\x00\x00b", "\x05\x00\x00\x00\x01a", "\x06\x02q\x00\x02r\x06\x02s", "\x01\x03a\x01\x03b\x02\x03c",
		"\x00\x05a\x00\x06b\x00\x08c\x00\x00d\x03\x05e\x03\x08f",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, ops []byte) {
		var m, spare Map
		var want model
		for ; len(ops) >= 3; ops = ops[3:] {
			name, value := fuzzNames[int(ops[1])%len(fuzzNames)], strings.Repeat(string(rune('a'+ops[2]%26)), int(ops[2])%40)
			switch ops[0] % 7 {
			case 0:
				m.Add(name, value)
				want = want.add(name, value)
			case 1:
				m.AddRaw([]byte(strings.ToUpper(name)), []byte(value))
				want = want.add(name, value)
			case 2:
				m.Set(name, value)
				want = want.set(name, value)
			case 3:
				m.Remove(name)
				want = want.remove(name, 0)
			case 4:
				m.RemoveIf(func(_ ID, n, v string) bool { return n == name && len(v) > 5 })
				var out model
				for _, x := range want {
					if x.name != name || len(x.value) <= 5 {
						out = append(out, x)
					}
				}
				want = out
			case 5:
				spare.CopyFrom(&m)
				m, spare = spare, m
			case 6:
				m.AddStatic(name, value)
				want = want.add(name, value)
			}
		}
		bytes := 0
		if m.Len() != len(want) {
			t.Fatalf("%d fields, want %d: %s", m.Len(), len(want), text(&m))
		}
		for i, x := range want {
			n, v := m.At(i)
			if n != x.name || v != x.value {
				t.Fatalf("field %d is %s=%s, want %s=%s", i, n, v, x.name, x.value)
			}
			bytes += len(n) + len(v)
		}
		if m.Bytes() != bytes {
			t.Fatalf("%d bytes, want %d", m.Bytes(), bytes)
		}
		for _, name := range fuzzNames {
			v, ok := m.Get(name)
			i := want.find(name)
			if ok != (i >= 0) || ok && v != want[i].value {
				t.Fatalf("%s is %q %t", name, v, ok)
			}
			if id := Lookup(name); id != None && m.Has(id) != ok {
				t.Fatalf("Has(%s) is %t", name, !ok)
			}
		}
	})
}
