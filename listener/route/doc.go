// Package route compiles route configurations (RDS) to tables and finds the route of a request.
//
// [Compile] turns a RouteConfiguration into a [Table]: a map of domains to virtual hosts, and in
// each virtual host a tree of paths. [Table.Match] gives the [Entry] of the route that Envoy would
// find by trying one after the other, at a cost that depends on the length of the path and not on
// the number of routes; a property test holds the two together. Tables and entries never change and
// hold no protobuf, so a stream keeps its Entry as long as it likes and a new table replaces the
// old by one pointer (see [Dynamic]).
//
// An Entry tells the router all that the configuration says about a request, and changes the heads:
// FinalizeRequest rewrites host and path and mutates headers in Envoy's order, FinalizeResponse
// does it for responses, Location computes a redirect.
//
// Limitations, each refused with its field path: VHDS, vhost_header, virtual host matchers, cluster
// specifier plugins, URI templates, internal redirects, hedging, filter_action, the deprecated
// cors. What the router can't do yet is switched by [Features].
package route
