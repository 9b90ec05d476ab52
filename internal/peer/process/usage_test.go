package process

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestTreeUsageOfSelf(t *testing.T) {
	t.Parallel()
	before, err := TreeUsage(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Millisecond); time.Now().Before(end); {
	}
	after, err := TreeUsage(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if after.CPU-before.CPU < 10*time.Millisecond {
		t.Errorf("30 ms of work counted as %v", after.CPU-before.CPU)
	}
	if after.RSS < 1<<20 || after.Threads < 1 || after.FDs < 3 || after.Maps < 10 {
		t.Errorf("implausible: %+v", after)
	}
}

func TestTreeUsageCountsChildren(t *testing.T) {
	t.Parallel()
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no shell:", err)
	}
	// The loop runs in a child of the shell; the shell waits for it, then for its own input to end.
	cmd := exec.Command(sh, "-c",
		`sh -c 'i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done'; echo done; read x`)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	u, err := TreeUsage(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if u.CPU < 10*time.Millisecond {
		t.Errorf("CPU of the child that ended is missing: %v", u.CPU)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // read fails at the end of input: exit status 1
}

func TestTreeUsageOfNobody(t *testing.T) {
	t.Parallel()
	if _, err := TreeUsage(1 << 22); err == nil {
		t.Error("a process that doesn't exist has accounts")
	}
}
