package protocol

import (
	"testing"

	"sidecar/internal/config/configtest"
)

// TestFields looks for fields that no list names.
func TestFields(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, nil, http2Fields, keepaliveFields)
}
