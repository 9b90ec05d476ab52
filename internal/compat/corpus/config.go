package corpus

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"strings"
)

// Fence is the name of the listener that the check itself uses: its log line tells that all earlier
// ones are written.
const Fence = "fence"

// LogFormat has no time, duration or id in it, so that two runs give the same line.
const LogFormat = "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL% " +
	"%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% " +
	"ct=%CONNECTION_TERMINATION_DETAILS% tf=%UPSTREAM_TRANSPORT_FAILURE_REASON% " +
	"rx=%BYTES_RECEIVED% tx=%BYTES_SENT% host=%UPSTREAM_HOST% cluster=%UPSTREAM_CLUSTER% " +
	"route=%ROUTE_NAME% tries=%UPSTREAM_REQUEST_ATTEMPT_COUNT%\n"

// ConnectionFormat is that of the listener's own log where the case file says TLS: of a handshake that
// fails nothing else tells.
const ConnectionFormat = "connection df=%DOWNSTREAM_TRANSPORT_FAILURE_REASON% sni=%REQUESTED_SERVER_NAME% " +
	"peer=%DOWNSTREAM_PEER_SUBJECT% uri=%DOWNSTREAM_PEER_URI_SAN% " +
	"chain=%FILTER_CHAIN_NAME%\n"

type object = map[string]any

const extensionPrefix = "type.googleapis.com/envoy.extensions."

// Build makes the config of a group as JSON (which is YAML too), placeholders expanded. The
// table must have admin, dir, dead, listener.NAME and up.NAME.
func (g *Group) Build(e Expander) ([]byte, error) {
	listeners := make([]any, 0, len(g.Listeners)+1)
	for i := range g.Listeners {
		listeners = append(listeners, g.Listeners[i].build())
	}
	fence := Listener{
		Name:      Fence,
		LogFormat: "fence %REQ(:PATH)%\n",
		Routes: []any{object{
			"match":           object{"prefix": "/"},
			"direct_response": object{"status": 200},
		}},
	}
	listeners = append(listeners, fence.build())
	clusters := make([]any, 0, len(g.Clusters))
	for i := range g.Clusters {
		clusters = append(clusters, g.Clusters[i].build())
	}
	config := object{
		"admin":            object{"address": address("@admin@")},
		"static_resources": object{"listeners": listeners, "clusters": clusters},
	}
	merge(config, g.Bootstrap)
	data, err := json.MarshalIndent(config, "", " ")
	if err != nil {
		return nil, err
	}
	text := string(data)
	// A port is a number, but a placeholder has to be a string until it is expanded.
	text = portValue.ReplaceAllString(text, `"port_value": $1`)
	text, err = e.Expand(text)
	return []byte(text), err
}

// portValue finds the port placeholders, to take the quotes off them.
var portValue = regexp.MustCompile(`"port_value": "(@[^@"]+@)"`)

func address(port string) object {
	return object{"socket_address": object{"address": "127.0.0.1", "port_value": port}}
}

func (l *Listener) build() object {
	filters := l.Filters
	if filters == nil {
		filters = []any{l.connectionManager()}
	}
	chain := object{"filters": filters}
	out := object{
		"name":          l.Name,
		"stat_prefix":   l.Name,
		"address":       address("@listener." + l.Name + "@"),
		"filter_chains": []any{chain},
	}
	if l.Match != nil {
		chain["filter_chain_match"] = l.Match
	}
	if l.TLS != nil {
		chain["transport_socket"] = transportSocket("DownstreamTlsContext", l.TLS)
		out["access_log"] = []any{fileLog(object{"inline_string": ConnectionFormat})}
	}
	merge(out, l.Raw)
	return out
}

func (l *Listener) connectionManager() object {
	hosts := l.VirtualHosts
	if hosts == nil {
		routes := l.Routes
		if routes == nil {
			routes = []any{object{"match": object{"prefix": "/"}, "route": object{"cluster": "main"}}}
		}
		hosts = []any{object{"name": "all", "domains": []any{"*"}, "routes": routes}}
	}
	hcm := object{
		"@type": extensionPrefix +
			"filters.network.http_connection_manager.v3.HttpConnectionManager",
		"stat_prefix": l.Name,
		// The default of 1 s would only make every case with a close slower.
		"delayed_close_timeout": "0.010s",
		"route_config":          object{"name": l.Name, "virtual_hosts": hosts},
		"access_log":            []any{l.accessLog()},
		"http_filters": []any{object{
			"name":         "envoy.filters.http.router",
			"typed_config": object{"@type": extensionPrefix + "filters.http.router.v3.Router"},
		}},
	}
	merge(hcm, l.HCM)
	return object{"name": "envoy.filters.network.http_connection_manager", "typed_config": hcm}
}

func (l *Listener) accessLog() object {
	config := object{
		"@type": extensionPrefix + "access_loggers.file.v3.FileAccessLog",
		"path":  "@dir@/access.log",
	}
	switch {
	case l.DefaultLog:
	case l.LogJSON != nil:
		config["log_format"] = object{"json_format": l.LogJSON}
	default:
		format := l.LogFormat
		if format == "" {
			format = LogFormat
		}
		config["log_format"] = object{"text_format_source": object{"inline_string": format}}
	}
	return object{"name": "envoy.access_loggers.file", "typed_config": config}
}

func fileLog(format object) object {
	return object{"name": "envoy.access_loggers.file", "typed_config": object{
		"@type":      extensionPrefix + "access_loggers.file.v3.FileAccessLog",
		"path":       "@dir@/access.log",
		"log_format": object{"text_format_source": format},
	}}
}

func transportSocket(kind string, fields object) object {
	config := object{"@type": extensionPrefix + "transport_sockets.tls.v3." + kind}
	maps.Copy(config, fields)
	return object{"name": "envoy.transport_sockets.tls", "typed_config": config}
}

func (c *Cluster) build() object {
	hosts := c.Hosts
	if hosts == nil {
		hosts = []string{"main"}
	}
	endpoints := make([]any, 0, len(hosts))
	for _, h := range hosts {
		port := "@up." + h + "@"
		if h == "dead" {
			port = "@dead@"
		}
		endpoints = append(endpoints, object{"endpoint": object{"address": address(port)}})
	}
	out := object{
		"name": c.Name,
		"type": "STATIC",
		"load_assignment": object{
			"cluster_name": c.Name,
			"endpoints":    []any{object{"lb_endpoints": endpoints}},
		},
	}
	if c.TLS != nil {
		out["transport_socket"] = transportSocket("UpstreamTlsContext", c.TLS)
	}
	merge(out, c.Raw)
	return out
}

// UpstreamNames lists the upstreams that the group's clusters, cases and config name.
func (g *Group) UpstreamNames() []string {
	names := map[string]bool{"main": true}
	for _, c := range g.Clusters {
		for _, h := range c.Hosts {
			names[h] = true
		}
		for _, n := range upstreamsIn(c.Raw) {
			names[n] = true
		}
	}
	for i := range g.Cases {
		for n := range g.Cases[i].Upstreams {
			names[n] = true
		}
	}
	delete(names, "dead")
	out := make([]string, 0, len(names))
	for n := range names {
		out = append(out, n)
	}
	return out
}

func upstreamsIn(raw object) []string {
	data, err := json.Marshal(raw)
	if err != nil {
		return nil // it came from JSON
	}
	var names []string
	for _, match := range placeholder.FindAllStringSubmatch(string(data), -1) {
		if name, ok := strings.CutPrefix(match[1], "up."); ok {
			names = append(names, name)
		}
	}
	return names
}

// merge writes src over dst: maps are merged, anything else is replaced, null deletes.
func merge(dst, src object) {
	for key, value := range src {
		if value == nil {
			delete(dst, key)
			continue
		}
		from, isMap := value.(object)
		into, hasMap := dst[key].(object)
		switch {
		case isMap && hasMap && from["@type"] == nil:
			merge(into, from)
		case isMap:
			dst[key] = maps.Clone(from)
		default:
			dst[key] = value
		}
	}
}

// Describe names a case for people.
func (g *Group) Describe(c *Case) string { return fmt.Sprintf("%s/%s", g.Name, c.Name) }
