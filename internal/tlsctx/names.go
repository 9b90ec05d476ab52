package tlsctx

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"sidecar/internal/config"
)

// name is an identifier of crypto/tls with OpenSSL's name of it.
type name struct {
	id   uint16
	text string
}

// suites are the cipher suites up to TLS 1.2 that can be chosen.
func suites() []name {
	return []name{
		{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, "ECDHE-ECDSA-AES128-GCM-SHA256"},
		{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, "ECDHE-ECDSA-CHACHA20-POLY1305"},
		{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, "ECDHE-RSA-AES128-GCM-SHA256"},
		{tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, "ECDHE-RSA-CHACHA20-POLY1305"},
		{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, "ECDHE-ECDSA-AES256-GCM-SHA384"},
		{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, "ECDHE-RSA-AES256-GCM-SHA384"},
		{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, "ECDHE-ECDSA-AES128-SHA"},
		{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, "ECDHE-RSA-AES128-SHA"},
		{tls.TLS_RSA_WITH_AES_128_GCM_SHA256, "AES128-GCM-SHA256"},
		{tls.TLS_RSA_WITH_AES_128_CBC_SHA, "AES128-SHA"},
		{tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, "ECDHE-ECDSA-AES256-SHA"},
		{tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA, "ECDHE-RSA-AES256-SHA"},
		{tls.TLS_RSA_WITH_AES_256_GCM_SHA384, "AES256-GCM-SHA384"},
		{tls.TLS_RSA_WITH_AES_256_CBC_SHA, "AES256-SHA"},
		{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256, "ECDHE-RSA-AES128-SHA256"},
		{tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA, "DES-CBC3-SHA"},
	}
}

// defaultSuites is how many of suites, from the first, are Envoy's default.
const defaultSuites = 6

func groups() []name {
	return []name{
		{uint16(tls.X25519), "X25519"},
		{uint16(tls.CurveP256), "P-256"},
		{uint16(tls.CurveP384), "P-384"},
		{uint16(tls.CurveP521), "P-521"},
		{uint16(tls.X25519MLKEM768), "X25519MLKEM768"},
	}
}

// defaultGroups is how many of groups, from the first, are Envoy's default for a client.
const defaultGroups = 2

func idOf(in []name, text string) (uint16, bool) {
	i := slices.IndexFunc(in, func(n name) bool { return n.text == text })
	if i < 0 {
		return 0, false
	}
	return in[i].id, true
}

func nameOf(in []name, id uint16) string {
	i := slices.IndexFunc(in, func(n name) bool { return n.id == id })
	if i < 0 {
		return ""
	}
	return in[i].text
}

func texts(in []name) string {
	out := make([]string, len(in))
	for i, n := range in {
		out[i] = n.text
	}
	return strings.Join(out, ", ")
}

func cipherName(id uint16) string {
	if s := nameOf(suites(), id); s != "" {
		return s
	}
	return tls.CipherSuiteName(id) // those of TLS 1.3 are called the same
}

func versionName(v uint16) string {
	switch v {
	case tls.VersionTLS10:
		return "TLSv1"
	case tls.VersionTLS11:
		return "TLSv1.1"
	case tls.VersionTLS12:
		return "TLSv1.2"
	case tls.VersionTLS13:
		return "TLSv1.3"
	}
	return fmt.Sprintf("0x%04x", v)
}

// params sets versions, cipher suites and groups. The greatest version of a client is TLS 1.2 unless
// the configuration says more, as in Envoy.
func params(p *config.Path, m *tlsv3.TlsParameters, cfg *tls.Config, client bool, errs *config.Errors) {
	paramsFields.Check(p, m, errs)
	cfg.MinVersion = version(m.GetTlsMinimumProtocolVersion(), tls.VersionTLS12)
	greatest := uint16(tls.VersionTLS13)
	if client {
		greatest = tls.VersionTLS12
	}
	cfg.MaxVersion = version(m.GetTlsMaximumProtocolVersion(), greatest)
	if cfg.MinVersion > cfg.MaxVersion {
		errs.Add(p, "tls_minimum_protocol_version is greater than tls_maximum_protocol_version")
	}
	cipherSuites(p.Field("cipher_suites"), m.GetCipherSuites(), cfg, errs)
	curves(p.Field("ecdh_curves"), m.GetEcdhCurves(), cfg, client, errs)
}

// cipherSuites reads a list of OpenSSL's or the standards' names. Entries may be lists themselves,
// divided by colons, and of equal preference, as [A|B]; which of the allowed ones is taken is up to
// crypto/tls. Keywords and operators of OpenSSL's language are refused.
func cipherSuites(p *config.Path, list []string, cfg *tls.Config, errs *config.Errors) {
	var rejected []string
	all := strings.Join(list, ":")
	for entry := range strings.SplitSeq(all, ":") {
		inner, opened := strings.CutPrefix(entry, "[")
		inner, closed := strings.CutSuffix(inner, "]")
		if opened != closed {
			rejected = append(rejected, entry)
			continue
		}
		for one := range strings.SplitSeq(inner, "|") {
			id, ok := idOf(suites(), one)
			if !ok {
				id, ok = standardSuite(one)
			}
			if !ok || inner != one && !opened {
				rejected = append(rejected, one)
				continue
			}
			cfg.CipherSuites = append(cfg.CipherSuites, id)
		}
	}
	if len(list) > 0 && len(rejected) > 0 {
		errs.Addf(p, "Failed to initialize cipher suites %s. The following ciphers were rejected when tried "+
			"individually: %s. There are %s", all, strings.Join(rejected, ", "), texts(suites()))
	}
	if len(list) == 0 {
		cfg.CipherSuites = nil
		for _, n := range suites()[:defaultSuites] {
			cfg.CipherSuites = append(cfg.CipherSuites, n.id)
		}
	}
}

// standardSuite finds a suite by the name that its standard gives it.
func standardSuite(text string) (uint16, bool) {
	for _, n := range suites() {
		if tls.CipherSuiteName(n.id) == text {
			return n.id, true
		}
	}
	return 0, false
}

// curves reads the key exchange groups. As Envoy, a server takes X25519MLKEM768 without being told.
func curves(p *config.Path, list []string, cfg *tls.Config, client bool, errs *config.Errors) {
	for i, s := range list {
		id, ok := idOf(groups(), s)
		if !ok {
			id, ok = idOf(groupAliases(), s)
		}
		if !ok {
			errs.Addf(p.Index(i), "Failed to initialize ECDH curves %s. There are %s", s, texts(groups()))
			continue
		}
		if slices.Contains(cfg.CurvePreferences, tls.CurveID(id)) {
			errs.Addf(p.Index(i), "Failed to initialize ECDH curves %s: %s is there twice", strings.Join(list, ":"), s)
		}
		cfg.CurvePreferences = append(cfg.CurvePreferences, tls.CurveID(id))
	}
	if len(list) == 0 {
		if !client {
			cfg.CurvePreferences = append(cfg.CurvePreferences, tls.X25519MLKEM768)
		}
		for _, n := range groups()[:defaultGroups] {
			cfg.CurvePreferences = append(cfg.CurvePreferences, tls.CurveID(n.id))
		}
	}
}

// groupAliases are other names that BoringSSL takes.
func groupAliases() []name {
	return []name{
		{uint16(tls.X25519), "x25519"},
		{uint16(tls.CurveP256), "prime256v1"},
		{uint16(tls.CurveP384), "secp384r1"},
		{uint16(tls.CurveP521), "secp521r1"},
	}
}

// maxProtocolName is the length of the longest name that ALPN can hold.
const maxProtocolName = 255

// compileALPN reads application protocols. An entry may be a list divided by commas, as in Envoy.
func compileALPN(p *config.Path, list []string, errs *config.Errors) []string {
	all := strings.Join(list, ",")
	if all == "" {
		return nil
	}
	out := strings.Split(all, ",")
	for _, one := range out {
		if one == "" || len(one) > maxProtocolName {
			errs.Addf(p, "Invalid ALPN protocol string: %q", all)
			return nil
		}
	}
	return out
}

func version(v tlsv3.TlsParameters_TlsProtocol, def uint16) uint16 {
	switch v {
	case tlsv3.TlsParameters_TLSv1_0:
		return tls.VersionTLS10
	case tlsv3.TlsParameters_TLSv1_1:
		return tls.VersionTLS11
	case tlsv3.TlsParameters_TLSv1_2:
		return tls.VersionTLS12
	case tlsv3.TlsParameters_TLSv1_3:
		return tls.VersionTLS13
	case tlsv3.TlsParameters_TLS_AUTO:
	}
	return def
}
