package config

import "google.golang.org/protobuf/reflect/protoreflect"

// suggest names the field that was probably meant, for the end of an error message.
func suggest(name string, fields protoreflect.FieldDescriptors) string {
	const longest = 64
	if len(name) > longest {
		return ""
	}
	best, found := max(1, len(name)/4), ""
	for i := range fields.Len() {
		if field := string(fields.Get(i).Name()); distance(name, field) <= best {
			best, found = distance(name, field)-1, field
		}
	}
	if found == "" {
		return ""
	}
	return "; did you mean " + found + "?"
}

// distance is the number of letters to insert, drop or change.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
