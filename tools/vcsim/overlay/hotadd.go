// HotAdd: a disk that is attached to a proxy VM appears there as a block device. Here the proxy's
// devices are links in a folder of this machine, to loop devices of the flat files.
package simulator

import (
	"log"
	"os"
	"os/exec"
	"path"
	"strings"

	"github.com/vmware/govmomi/vim25/types"
)

type attachedDisk struct{ link, device string }

// hotAttach makes the device of a disk that a proxy got; other VMs need none.
func hotAttach(vm *VirtualMachine, d *types.VirtualDisk) types.BaseMethodFault {
	b := back(d)
	if b == nil || vadp.hotAdd == "" || !vadp.proxies[vm.Self.Value] {
		return nil
	}
	args := []string{"--find", "--show", flat(b.FileName)}
	if strings.HasSuffix(b.DiskMode, "nonpersistent") {
		args = append([]string{"--read-only"}, args...)
	}
	out, err := exec.Command("losetup", args...).CombinedOutput()
	if err != nil {
		log.Printf("losetup %s: %s", flat(b.FileName), out)
		return &types.FileFault{File: b.FileName}
	}
	a := attachedDisk{
		path.Join(vadp.hotAdd, "wwn-0x"+strings.ToLower(strings.ReplaceAll(b.Uuid, "-", ""))),
		strings.TrimSpace(string(out)),
	}
	_ = os.Remove(a.link)
	if err := os.Symlink(a.device, a.link); err != nil {
		log.Printf("%s", err)
	}
	vadp.loops[hotKey(vm, b)] = a
	return nil
}

func hotKey(vm *VirtualMachine, b *types.VirtualDiskFlatVer2BackingInfo) string {
	return vm.Self.Value + " " + b.FileName
}

// vadpRemoved is called for each device that is removed, or about to be replaced by an edited one.
func vadpRemoved(vm *VirtualMachine, device types.BaseVirtualDevice) {
	d, ok := device.(*types.VirtualDisk)
	if !ok || back(d) == nil {
		return
	}
	if a, ok := vadp.loops[hotKey(vm, back(d))]; ok {
		a.detach()
		delete(vadp.loops, hotKey(vm, back(d)))
	}
}

func (a attachedDisk) detach() {
	_ = os.Remove(a.link)
	if out, err := exec.Command("losetup", "--detach", a.device).CombinedOutput(); err != nil {
		log.Printf("losetup --detach %s: %s", a.device, out)
	}
}

// DetachAll is called at the end.
func DetachAll() {
	defer Enter()()
	for key, a := range vadp.loops {
		a.detach()
		delete(vadp.loops, key)
	}
}
