package pool_test

import (
	"net"
	"syscall"
	"testing"

	"sidecar/cluster/load"
)

// silent returns the address of a TCP port that neither accepts nor refuses: its backlog is full.
func silent(t *testing.T) net.Addr {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	in, ok := sa.(*syscall.SockaddrInet4)
	if err != nil || !ok {
		t.Fatal("no address", err)
	}
	addr := &net.TCPAddr{IP: net.IP(in.Addr[:]), Port: in.Port}
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return addr
}

// TestCancelTCPDial holds that nobody's dial does not last until connect_timeout (5 s in the rig).
func TestCancelTCPDial(t *testing.T) {
	t.Parallel()
	r := newRig(t, silent(t), load.DefaultLimits(), nil)
	u := r.user()
	if f := u.connect(); f != nil {
		t.Fatal(f)
	}
	if r.traffic.CxActive.Value() != 1 || len(u.events) != 0 {
		t.Fatal("the dial has not begun, or has ended")
	}
	u.in(u.lease.Cancel)
	r.wait("end of the dial", func() bool { return r.traffic.CxActive.Value() == 0 })
	if r.traffic.CxDestroyLocal.Value() != 1 || r.traffic.CxConnectFail.Value() != 1 || r.traffic.CxConnectTimeout.Value() != 0 {
		t.Fatal("not counted as ended by us")
	}
	if len(u.events) != 0 || r.traffic.RqCancelled.Value() != 1 {
		t.Fatal("a cancelled stream was told something")
	}
}
