package process

import (
	"os/exec"
	"runtime"
)

// startLocked starts cmd from a thread of its own that lives as long as the program: Pdeathsig
// fires when the *thread* that forked ends, and the runtime ends threads as it likes.
func startLocked(cmd *exec.Cmd) error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		started <- cmd.Start()
		if cmd.Process == nil {
			return
		}
		select {}
	}()
	return <-started
}
