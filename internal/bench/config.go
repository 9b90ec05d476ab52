package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
)

type object = map[string]any

const (
	extensions  = "type.googleapis.com/envoy.extensions."
	wasmTypeURL = extensions + "filters.http.wasm.v3.Wasm"
	// The project's own form of the filter, which has limits.
	limitedTypeURL = "type.googleapis.com/sidecar.wasm.v1.Wasm"

	routeCount = 50
	// benchPath is one of the later routes: matching has some way to go.
	benchPath = "/service-40/items"
)

// shape is what a bench needs in the config. The same shape gives both proxies the same text, but
// for ports and the folder that they write to.
type shape struct {
	plugin   string   // Wasm module; none when empty
	version  string   // the plugin's configuration
	ecds     bool     // the plugin comes from a watched file
	further  []string // modules of plugins before it
	policy   string   // failure policy
	deadline string   // of our own; needs a proxy that knows it
	clusters int      // extra clusters with two hosts and a virtual host each

	service  service     // what the load's cluster is
	security security    // of the HTTP listener
	secrets  bool        // the listener's certificate comes from a watched file
	certs    *identities // needed for any TLS
	peer     int         // port of another proxy, which the load's cluster reaches over mutual TLS
}

// service is the upstream behind the load's routes.
type service int

const (
	serviceHTTP1 service = iota
	serviceHTTP2         // fixed answers, h2c
	serviceSizes         // any size, h2c
	serviceGRPC          // messages that come back, h2c
)

// security is how clients reach the HTTP listener.
type security int

const (
	plaintext security = iota
	secured            // TLS
	mutual             // TLS with client certificates
)

// ports are those of one proxy.
type ports struct{ admin, http, tcp int }

func (s *shape) build(p ports, dir string, up upstreamPorts) ([]byte, error) {
	hcm := object{
		"@type": extensions +
			"filters.network.http_connection_manager.v3.HttpConnectionManager",
		"stat_prefix":        "ingress",
		"use_remote_address": true,
		"route_config":       s.routes(),
		"access_log": []any{object{
			"name": "envoy.access_loggers.file",
			"typed_config": object{
				"@type": extensions + "access_loggers.file.v3.FileAccessLog",
				"path":  filepath.Join(dir, "access.log"),
			},
		}},
		"http_filters": s.filters(dir),
	}
	tcp := object{
		"@type":       extensions + "filters.network.tcp_proxy.v3.TcpProxy",
		"stat_prefix": "tcp",
		"cluster":     "echo",
	}
	clusters := make([]any, 0, 2+s.clusters)
	clusters = append(clusters, s.serviceCluster(up), cluster("echo", up.tcp))
	for i := range s.clusters {
		clusters = append(clusters, cluster(extraName(i), up.http, up.tcp))
	}
	web := listener("http", p.http, "envoy.filters.network.http_connection_manager", hcm)
	s.secure(web, dir)
	config := object{
		"admin": object{"address": address(p.admin)},
		"node":  object{"id": "bench", "cluster": "bench"},
		"static_resources": object{
			"listeners": []any{
				web,
				listener("tcp", p.tcp, "envoy.filters.network.tcp_proxy", tcp),
			},
			"clusters": clusters,
		},
	}
	return json.MarshalIndent(config, "", " ")
}

func address(port int) object {
	return object{"socket_address": object{"address": "127.0.0.1", "port_value": port}}
}

func listener(name string, port int, filter string, config object) object {
	return object{
		"name": name, "address": address(port),
		"filter_chains": []any{object{
			"filters": []any{object{"name": filter, "typed_config": config}},
		}},
	}
}

func extraName(i int) string { return fmt.Sprintf("outbound|80||service-%d.bench.svc", i) }

// cluster has default circuit breakers raised: ten thousand connections are a bench, not a fault.
func cluster(name string, hosts ...int) object {
	endpoints := make([]any, 0, len(hosts))
	for _, port := range hosts {
		endpoints = append(endpoints, object{"endpoint": object{"address": address(port)}})
	}
	return object{
		"name": name, "type": "STATIC", "connect_timeout": "5s",
		"circuit_breakers": object{"thresholds": []any{object{
			"max_connections": 100000, "max_pending_requests": 100000, "max_requests": 100000,
		}}},
		"load_assignment": object{
			"cluster_name": name,
			"endpoints":    []any{object{"lb_endpoints": endpoints}},
		},
	}
}

// routes is the virtual host of the load, with three headers added, and one for each extra cluster.
func (s *shape) routes() object {
	routes := make([]any, 0, routeCount+1)
	for i := range routeCount {
		routes = append(routes, route(fmt.Sprintf("/service-%d/", i), "service"))
	}
	routes = append(routes, route("/", "service"))
	hosts := make([]any, 0, 2+s.clusters)
	hosts = append(hosts, object{
		"name": "bench", "domains": []any{"bench.test", "127.0.0.1", "127.0.0.1:*"}, "routes": routes,
		"request_headers_to_add": []any{
			header("x-bench-static", "one"), header("x-bench-protocol", "%PROTOCOL%"),
		},
		"response_headers_to_add": []any{header("x-bench-host", "%UPSTREAM_HOST%")},
	})
	for i := range s.clusters {
		hosts = append(hosts, object{
			"name":    extraName(i),
			"domains": []any{fmt.Sprintf("service-%d.bench.svc", i)},
			"routes":  []any{route("/", extraName(i))},
		})
	}
	hosts = append(hosts, object{
		"name": "rest", "domains": []any{"*"}, "routes": routes,
	})
	return object{"name": "bench", "virtual_hosts": hosts}
}

func route(prefix, cluster string) object {
	return object{"match": object{"prefix": prefix}, "route": object{"cluster": cluster}}
}

func header(name, value string) object {
	return object{"header": object{"key": name, "value": value}}
}

func (s *shape) filters(dir string) []any {
	router := object{
		"name":         "envoy.filters.http.router",
		"typed_config": object{"@type": extensions + "filters.http.router.v3.Router"},
	}
	switch {
	case s.plugin == "":
		return []any{router}
	case s.ecds:
		return []any{object{
			"name": "plugin",
			"config_discovery": object{
				"config_source": object{
					"resource_api_version": "V3",
					"path_config_source": object{
						"path":              filepath.Join(dir, "ecds.yaml"),
						"watched_directory": object{"path": dir},
					},
				},
				"type_urls": []any{wasmTypeURL},
			},
		}, router}
	}
	return append(s.furtherPlugins(), object{"name": "plugin", "typed_config": s.wasm(s.version)}, router)
}

// wasm is the filter's own config. Envoy's wheel has V8 only; the name stands for "the runtime".
func (s *shape) wasm(version string) object {
	plugin := object{
		"name": "bench",
		"vm_config": object{
			"runtime": "envoy.wasm.runtime.v8",
			"code":    object{"local": object{"filename": s.plugin}},
		},
		"configuration": object{
			"@type": "type.googleapis.com/google.protobuf.StringValue", "value": version,
		},
	}
	if s.policy != "" {
		plugin["failure_policy"] = s.policy
	}
	if s.deadline == "" {
		return object{"@type": wasmTypeURL, "config": plugin}
	}
	return object{
		"@type": limitedTypeURL, "config": plugin,
		"limits": object{"stream_deadline": s.deadline},
	}
}

// ecdsFile is the discovery response with the plugin in the given version.
func (s *shape) ecdsFile(version string) ([]byte, error) {
	return json.Marshal(object{
		"version_info": version,
		"resources": []any{object{
			"@type":        "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
			"name":         "plugin",
			"typed_config": s.wasm(version),
		}},
	})
}
