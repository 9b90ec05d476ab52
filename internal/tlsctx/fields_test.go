package tlsctx

import (
	"testing"

	"sidecar/internal/config"
	"sidecar/internal/config/configtest"
)

func TestFields(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, configtest.Elsewhere{
		"envoy.config.core.v3.ConfigSource", "envoy.type.matcher.v3.StringMatcher",
	}, downstreamFields, upstreamFields, commonFields, combinedFields, paramsFields, keyLogFields, sdsFields, secretFields,
		certificateFields, ticketFields, genericFields, watchedFields, validationFields, sanFields, config.CIDRFields)
}
