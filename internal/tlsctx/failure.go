package tlsctx

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
)

// libSSL is BoringSSL's number of its library SSL, which its error codes begin with.
const libSSL = 16 << 24

// failureText is Envoy's text for a handshake that failed, "" where it has none.
//
// DIVERGES(tls-texts): what crypto/tls finds wrong beyond the common cases is told in its own words.
func failureText(err error) string {
	if bad, ok := errors.AsType[*verifyError](err); ok {
		return boring(125, "CERTIFICATE_VERIFY_FAILED:verify cert failed: "+bad.text)
	}
	if errors.Is(err, errKeyUsage) {
		return boring(302, "KEY_USAGE_BIT_INCORRECT")
	}
	if errors.Is(err, errStaple) {
		return boring(133, "CONNECTION_REJECTED")
	}
	if header, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return recordText(string(header.RecordHeader[:]))
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" {
		return alertText(op.Err.Error())
	}
	text := err.Error()
	for _, c := range [...]struct {
		part   string
		reason int
		name   string
	}{
		{"didn't provide a certificate", 192, "PEER_DID_NOT_RETURN_A_CERTIFICATE:peer did not provide required client certificate"},
		{"unsupported versions", 240, "UNSUPPORTED_PROTOCOL"},
		{"unsupported protocol version", 240, "UNSUPPORTED_PROTOCOL"},
		{"no cipher suite supported", 184, "NO_SHARED_CIPHER"},
		{"no key exchanges supported", 266, "NO_SHARED_GROUP"},
		{"no ECDHE curve", 266, "NO_SHARED_GROUP"},
		{"bad record MAC", 139, "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"},
	} {
		if strings.Contains(text, c.part) {
			return boring(c.reason, c.name)
		}
	}
	if rest, ok := strings.CutPrefix(text, "tls: "); ok {
		return "TLS_error:|" + rest + ":TLS_error_end"
	}
	return ""
}

func boring(reason int, name string) string {
	return fmt.Sprintf("TLS_error:|%d:SSL routines:OPENSSL_internal:%s:TLS_error_end", libSSL+reason, name)
}

// recordText tells of a peer that speaks no TLS, by its first five bytes.
func recordText(b string) string {
	for _, method := range [...]string{"GET ", "POST ", "HEAD ", "PUT "} {
		if b[:len(method)] == method {
			return boring(156, "HTTP_REQUEST")
		}
	}
	if b == "CONNE" {
		return boring(155, "HTTPS_PROXY_REQUEST")
	}
	return boring(247, "WRONG_VERSION_NUMBER")
}

// alertText tells of an alert that the peer sent.
func alertText(text string) string {
	for _, a := range [...]struct {
		text   string
		number int
		name   string
	}{
		{"unexpected message", 10, "SSLV3_ALERT_UNEXPECTED_MESSAGE"},
		{"bad record MAC", 20, "SSLV3_ALERT_BAD_RECORD_MAC"},
		{"handshake failure", 40, "SSLV3_ALERT_HANDSHAKE_FAILURE"},
		{"bad certificate", 42, "SSLV3_ALERT_BAD_CERTIFICATE"},
		{"unsupported certificate", 43, "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE"},
		{"revoked certificate", 44, "SSLV3_ALERT_CERTIFICATE_REVOKED"},
		{"expired certificate", 45, "SSLV3_ALERT_CERTIFICATE_EXPIRED"},
		{"unknown certificate", 46, "SSLV3_ALERT_CERTIFICATE_UNKNOWN"},
		{"illegal parameter", 47, "SSLV3_ALERT_ILLEGAL_PARAMETER"},
		{"unknown certificate authority", 48, "TLSV1_ALERT_UNKNOWN_CA"},
		{"access denied", 49, "TLSV1_ALERT_ACCESS_DENIED"},
		{"error decoding message", 50, "TLSV1_ALERT_DECODE_ERROR"},
		{"error decrypting message", 51, "TLSV1_ALERT_DECRYPT_ERROR"},
		{"protocol version not supported", 70, "TLSV1_ALERT_PROTOCOL_VERSION"},
		{"insufficient security level", 71, "TLSV1_ALERT_INSUFFICIENT_SECURITY"},
		{"internal error", 80, "TLSV1_ALERT_INTERNAL_ERROR"},
		{"user canceled", 90, "TLSV1_ALERT_USER_CANCELLED"},
		{"unrecognized name", 112, "TLSV1_ALERT_UNRECOGNIZED_NAME"},
		{"certificate required", 116, "TLSV1_ALERT_CERTIFICATE_REQUIRED"},
		{"no application protocol", 120, "TLSV1_ALERT_NO_APPLICATION_PROTOCOL"},
	} {
		if text == "tls: "+a.text {
			return boring(1000+a.number, a.name)
		}
	}
	return "TLS_error:|" + strings.TrimPrefix(text, "tls: ") + ":TLS_error_end"
}
