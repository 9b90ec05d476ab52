// Package tlsctx compiles Envoy's TLS contexts (DownstreamTlsContext, UpstreamTlsContext and what
// they have in common) into transports on crypto/tls, and the secrets that they use into Materials.
//
// A compiled context holds no protobuf. What it derives from its secrets is kept as long as the
// secrets are the same, so a rotation costs one pointer comparison in each handshake and takes
// effect with the next connection; connections that are open keep what they began with.
//
// Limitations, each refused with an error that names the field: PKCS #12 and encrypted private keys,
// private key providers, custom handshakers, validators and certificate selectors, certificate
// providers, renegotiation, signature_algorithms and compliance policies, and the cipher suites and
// curves that crypto/tls lacks.
//
// DIVERGES(tls): crypto/tls puts cipher suites and key exchange groups in an order of its own, so
// lists say which are allowed and no more.
//
// Single importer: the composition root hands its transport sockets to listeners and clusters, which
// name none.
package tlsctx
