package wasmhost

import (
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// childBytes bounds the child's memory: what a module of the largest size that makes sense needs.
const childBytes = 3 << 30

// limitChild has the kernel end the child with us, also when we are killed.
func limitChild(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// limitSelf bounds this process. Out of memory, the kernel takes it first.
func limitSelf(cpu time.Duration) error {
	seconds := uint64(cpu / time.Second)
	for resource, limit := range map[int]uint64{
		unix.RLIMIT_DATA: childBytes, unix.RLIMIT_CPU: seconds, unix.RLIMIT_CORE: 0, unix.RLIMIT_FSIZE: childBytes,
	} {
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
			return err
		}
	}
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0) // What is denied costs nothing but politeness.
	return nil
}

// yield lowers this thread's claim to a processor, to a tenth of others', or to what nobody else wants.
func yield(idle bool) {
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 10)
	if idle {
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 19)
		_ = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0)
	}
}

// memoryFile is a file that has no name and no disk.
func memoryFile(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
