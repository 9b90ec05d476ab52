package main

import (
	"encoding/json"
	"path/filepath"
)

const tlsExtensions = extensions + "transport_sockets.tls.v3."

// serviceCluster is the cluster that the load's routes lead to.
func (s *shape) serviceCluster(up upstreamPorts) object {
	port := map[service]int{
		serviceHTTP1: up.http, serviceHTTP2: up.http2, serviceSizes: up.sizes, serviceGRPC: up.grpc,
	}[s.service]
	if s.peer != 0 {
		port = s.peer
	}
	out := cluster("service", port)
	if s.service != serviceHTTP1 || s.peer != 0 {
		out["typed_extension_protocol_options"] = object{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": object{
				"@type":                extensions + "upstreams.http.v3.HttpProtocolOptions",
				"explicit_http_config": object{"http2_protocol_options": object{}},
			},
		}
	}
	if s.peer != 0 {
		out["transport_socket"] = object{
			"name": "envoy.transport_sockets.tls",
			"typed_config": object{
				"@type": tlsExtensions + "UpstreamTlsContext", "sni": benchHost,
				"common_tls_context": object{
					"alpn_protocols":     []any{"h2"},
					"tls_certificates":   []any{s.certs.client.certificate()},
					"validation_context": object{"trusted_ca": object{"filename": s.certs.ca}},
				},
			},
		}
	}
	return out
}

// secure puts TLS on a listener as far as the shape asks for it.
func (s *shape) secure(listener object, dir string) {
	if s.security == plaintext {
		return
	}
	common := object{"alpn_protocols": []any{"h2", "http/1.1"}}
	if s.secrets {
		common["tls_certificate_sds_secret_configs"] = []any{object{
			"name": secretName,
			"sds_config": object{
				"resource_api_version": "V3",
				"path_config_source": object{
					"path":              filepath.Join(dir, secretFile),
					"watched_directory": object{"path": dir},
				},
			},
		}}
	} else {
		common["tls_certificates"] = []any{s.certs.server.certificate()}
	}
	config := object{
		"@type": tlsExtensions + "DownstreamTlsContext", "common_tls_context": common,
	}
	if s.security == mutual {
		common["validation_context"] = object{"trusted_ca": object{"filename": s.certs.ca}}
		config["require_client_certificate"] = true
	}
	chains, ok := listener["filter_chains"].([]any)
	if !ok || len(chains) != 1 {
		return
	}
	if chain, ok := chains[0].(object); ok {
		chain["transport_socket"] = object{
			"name": "envoy.transport_sockets.tls", "typed_config": config,
		}
	}
}

const (
	secretName = "server"
	secretFile = "sds.yaml"
)

// writeSecret replaces the file that the listener's certificate comes from.
func (s *subject) writeSecret(id identity) error {
	data, err := json.Marshal(object{
		"version_info": id.serial,
		"resources": []any{object{
			"@type":           tlsExtensions + "Secret",
			"name":            secretName,
			"tls_certificate": id.certificate(),
		}},
	})
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(s.dir, secretFile), data)
}

// certificate is the message that names the identity's files.
func (id identity) certificate() object {
	return object{
		"certificate_chain": object{"filename": id.chain},
		"private_key":       object{"filename": id.key},
	}
}
