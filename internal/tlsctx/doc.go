// Package tlsctx compiles Envoy's TLS contexts (DownstreamTlsContext, UpstreamTlsContext and what
// they have in common) into transports on crypto/tls, and the secrets that they use into Materials.
//
// A compiled context holds no protobuf. What it derives from its secrets is kept as long as the
// secrets are the same, so a rotation costs one pointer comparison in each handshake and takes
// effect with the next connection; connections that are open keep what they began with.
//
// Limitations, each refused with an error that names the field: PKCS #12 and encrypted private keys
// (neither the standard library nor anything maintained reads what OpenSSL writes today), private key
// providers, custom handshakers, validators and certificate selectors, certificate providers,
// renegotiation (it would have a reader block), signed certificate timestamps, parameters of single
// certificates, signature_algorithms and compliance policies, and the cipher suites and curves that
// crypto/tls lacks, with the keywords of OpenSSL's cipher strings.
//
// DIVERGES(tls): crypto/tls puts cipher suites and key exchange groups in an order of its own, so
// lists say which are allowed and no more.
//
// DIVERGES(tls-alerts): the alert that a refused peer gets is bad_certificate, or internal_error where
// a server has nothing to show; Envoy tells expired, unknown and revoked certificates apart.
//
// DIVERGES(tls-session-id): crypto/tls doesn't tell a session's identifier, so that
// %DOWNSTREAM_TLS_SESSION_ID% is always "-"; Envoy has one for resumed sessions of TLS 1.2.
//
// DIVERGES(tls-keylog): key_log's file is opened with the first session that is logged, so a path that
// can't be opened fails handshakes; Envoy refuses the configuration.
//
// Single importer: the composition root hands its transport sockets to listeners and clusters, which
// name none.
package tlsctx
