package dial

import "golang.org/x/sys/unix"

// setSource prepares a socket that will be bound to a source address. The port is chosen when the
// connection is made, so that as many connections as ports go to each destination, not in all (Envoy:
// IP_BIND_ADDRESS_NO_PORT).
func setSource(fd int, freebind bool) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
		return err
	}
	if !freebind {
		return nil
	}
	return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_FREEBIND, 1)
}
