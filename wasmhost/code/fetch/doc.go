// Package fetch gets modules over HTTP and out of image registries, for plugins whose configuration
// names an http://, https:// or oci:// address that no cluster leads to.
//
// It treats what it talks to as hostile: every answer is bounded, what is unpacked too; a registry can't
// send its client, with the credentials for it, to where the operator didn't mean it to go (private
// addresses, plain HTTP); what is pinned by a digest is verified.
//
// Limitations: registries' layers are gzip or plain tar, not zstd; credentials come from a docker
// configuration, not from credential helpers; there is no way through an HTTP proxy.
package fetch
