package tlsctx

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"sidecar/internal/config"
)

//nolint:gochecknoglobals // immutable tables
var (
	downstreamFields = config.Fields[*tlsv3.DownstreamTlsContext]{
		Used: `common_tls_context require_client_certificate session_ticket_keys
			session_ticket_keys_sds_secret_config disable_stateless_session_resumption
			session_timeout ocsp_staple_policy full_scan_certs_on_sni_mismatch require_sni`,
		NoOp: map[string]string{
			"disable_stateful_session_resumption": "crypto/tls servers keep no sessions",
			"prefer_client_ciphers":               "crypto/tls chooses by the hardware of both sides, whoever prefers what",
		},
	}
	upstreamFields = config.Fields[*tlsv3.UpstreamTlsContext]{
		Used:    `common_tls_context sni auto_host_sni auto_sni_san_validation max_session_keys`,
		OffOnly: "allow_renegotiation",
		NoOp: map[string]string{
			"enforce_rsa_key_usage": "the key usage of peers' certificates is always enforced, as by Envoy 1.40",
		},
	}
	commonFields = config.Fields[*tlsv3.CommonTlsContext]{
		Used: `tls_params tls_certificates tls_certificate_sds_secret_configs validation_context
			validation_context_sds_secret_config combined_validation_context alpn_protocols key_log`,
		Refused: `tls_certificate_provider_instance custom_tls_certificate_selector
			tls_certificate_certificate_provider tls_certificate_certificate_provider_instance
			validation_context_certificate_provider
			validation_context_certificate_provider_instance custom_handshaker`,
	}
	combinedFields = config.Fields[*tlsv3.CommonTlsContext_CombinedCertificateValidationContext]{
		Used: "default_validation_context validation_context_sds_secret_config",
		Refused: `validation_context_certificate_provider
			validation_context_certificate_provider_instance`,
	}
	paramsFields = config.Fields[*tlsv3.TlsParameters]{
		Used: "tls_minimum_protocol_version tls_maximum_protocol_version cipher_suites ecdh_curves",
		// crypto/tls has no say in the peer's signatures, nor in the suites of TLS 1.3.
		Refused: "signature_algorithms compliance_policies",
	}
	keyLogFields      = config.Fields[*tlsv3.TlsKeyLog]{Used: "path local_address_range remote_address_range"}
	sdsFields         = config.Fields[*tlsv3.SdsSecretConfig]{Used: "name sds_config"}
	secretFields      = config.Fields[*tlsv3.Secret]{Used: "name tls_certificate session_ticket_keys validation_context generic_secret"}
	certificateFields = config.Fields[*tlsv3.TlsCertificate]{
		Used:    "certificate_chain private_key watched_directory ocsp_staple",
		Refused: "pkcs12 private_key_provider password tls_params",
		NoOp: map[string]string{
			"signed_certificate_timestamp": "Envoy doesn't send them either",
		},
	}
	ticketFields     = config.Fields[*tlsv3.TlsSessionTicketKeys]{Used: "keys"}
	genericFields    = config.Fields[*tlsv3.GenericSecret]{Used: "secret secrets"}
	watchedFields    = config.Fields[*corev3.WatchedDirectory]{Used: "path", NoOp: map[string]string{"watch_modify": "files written in place are always noticed"}}
	validationFields = config.Fields[*tlsv3.CertificateValidationContext]{
		Used: `trusted_ca system_root_certs watched_directory verify_certificate_spki
			verify_certificate_hash match_typed_subject_alt_names match_subject_alt_names crl
			allow_expired_certificate trust_chain_verification only_verify_leaf_cert_crl
			max_verify_depth suppress_client_ca_list`,
		OffOnly: "require_signed_certificate_timestamp",
		Refused: "ca_certificate_provider_instance custom_validator_config",
	}
	sanFields = config.Fields[*tlsv3.SubjectAltNameMatcher]{Used: "san_type matcher oid"}
)
