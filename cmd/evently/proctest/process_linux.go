package proctest

import (
	"os/exec"
	"syscall"
)

// endWithParent makes the kernel kill the process when the thread that starts it ends: that thread has to live as long.
func endWithParent(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
