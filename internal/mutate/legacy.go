package mutate

import (
	"encoding/json"
	"regexp"
	"strings"
)

// translate turns the forms of metadata operators that header values had before they became
// substitution formats into today's, as Envoy still does: UPSTREAM_METADATA(["ns", "key"]) and
// PER_REQUEST_STATE(key). What isn't well-formed stays, for the format's parser to refuse.
func translate(text string) string {
	if strings.Contains(text, "_METADATA(") && strings.Contains(text, "[") {
		re := regexp.MustCompile(`%(UPSTREAM|DYNAMIC)_METADATA\(\s*(\[[^\]]*\])\s*\)%`)
		text = re.ReplaceAllStringFunc(text, func(command string) string {
			m := re.FindStringSubmatch(command)
			var keys []string
			if json.Unmarshal([]byte(m[2]), &keys) != nil {
				return command
			}
			return "%" + m[1] + "_METADATA(" + strings.Join(keys, ":") + ")%"
		})
	}
	if strings.Contains(text, "%PER_REQUEST_STATE(") {
		re := regexp.MustCompile(`%PER_REQUEST_STATE\(([^)]*)\)%`)
		text = re.ReplaceAllString(text, "%FILTER_STATE($1:PLAIN)%")
	}
	return text
}
