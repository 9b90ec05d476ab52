package config

import (
	"errors"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
)

// ParseList is [Parse] for a message that carries a list of things which stand for their own, such as
// the resources of a DiscoveryResponse: what is wrong with an element doesn't spoil the others.
// elements holds, for each element of the repeated field list, its own errors, with paths that start
// at the element; err is everything else. An element with an error is in msg as far as it could be
// read: good for its name and its type.
func ParseList(
	name string, f Format, data []byte, msg proto.Message, list string, unknown Unknown,
) (elements, warnings []error, err error) {
	warnings, err = Parse(name, f, data, msg, unknown)
	m := msg.ProtoReflect()
	fd := m.Descriptor().Fields().ByTextName(list)
	if fd == nil || !fd.IsList() {
		return nil, warnings, err
	}
	elements = make([]error, m.Get(fd).List().Len())
	var rest []error
	for _, e := range Flatten(err) {
		i, path, ok := elementOf(e.Path, list)
		if !ok || i >= len(elements) {
			rest = append(rest, e)
			continue
		}
		own := *e
		own.Path = path
		elements[i] = errors.Join(elements[i], &own)
	}
	return elements, warnings, errors.Join(rest...)
}

// elementOf splits list[3].a.b into 3 and a.b.
func elementOf(path, list string) (i int, rest string, ok bool) {
	path, ok = strings.CutPrefix(path, list+"[")
	if !ok {
		return 0, "", false
	}
	digits, rest, ok := strings.Cut(path, "]")
	if !ok {
		return 0, "", false
	}
	i, err := strconv.Atoi(digits)
	return i, strings.TrimPrefix(rest, "."), err == nil && i >= 0
}
