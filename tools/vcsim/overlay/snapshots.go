// Snapshots: the live disks become children of frozen ones, and are merged when a snapshot goes.
package simulator

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const (
	maxSnapshotLevels = 32
	defaultStun       = 12345 // microseconds
)

var deltaSuffix = regexp.MustCompile(`(-\d{6})?\.vmdk$`)

// makeSnapshot gives the VM new live disks; the snapshot's configuration keeps the old ones.
func (vm *VirtualMachine) makeSnapshot(name, description string, quiesced bool) (types.AnyType, types.BaseMethodFault) {
	if quiesced && vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn && !guestOf(vm.Self.Value).tools {
		return nil, new(types.ApplicationQuiesceFault)
	}
	if vm.snapshotLevels() >= maxSnapshotLevels {
		return nil, new(types.TooManySnapshotLevels)
	}
	n := atomic.AddInt32(&vm.sid, 1)
	live := copyDevices(vm.Config.Hardware.Device)
	for _, d := range vmDisks(live) {
		if b := back(d); b != nil && !strings.HasPrefix(b.DiskMode, "independent") {
			changeID, err := vm.track(d)
			if err == nil {
				if frozen, diskErr := vm.disk(d.Key); diskErr == nil {
					back(frozen).ChangeId = changeID
				}
				b.ChangeId = changeID
				err = vm.startChild(d, n)
			}
			if err != nil {
				return nil, &types.FileFault{File: b.FileName + ": " + err.Error()}
			}
		}
	}
	snapshot := &VirtualMachineSnapshot{}
	snapshot.Vm, snapshot.Config = vm.Self, *vm.Config
	Map.Put(snapshot)
	vm.plant(types.VirtualMachineSnapshotTree{
		Snapshot: snapshot.Self, Vm: vm.Self, Name: name, Description: description, Id: n,
		CreateTime: time.Now(), State: vm.Runtime.PowerState, Quiesced: quiesced,
		ReplaySupported: types.NewBool(false),
	})
	vm.setDevices(live)
	vm.logStun()
	return snapshot.Self, nil
}

// startChild makes the disk a child of the file that it is in now.
func (vm *VirtualMachine) startChild(d *types.VirtualDisk, n int32) error {
	b := back(d)
	parent := *b
	child := deltaSuffix.ReplaceAllString(b.FileName, fmt.Sprintf("-%06d.vmdk", n))
	if err := clone(flat(b.FileName), flat(child)); err != nil {
		return err
	}
	b.FileName, b.Parent = child, &parent
	return (&descriptor{size: getDiskSize(d), uuid: b.Uuid, parent: parent.FileName}).write(child)
}

func (vm *VirtualMachine) snapshotLevels() int {
	levels := 0
	if vm.Snapshot != nil && vm.Snapshot.CurrentSnapshot != nil {
		for ref := vm.Snapshot.CurrentSnapshot; ref != nil; levels++ {
			ref = findParentSnapshotInTree(vm.Snapshot.RootSnapshotList, *ref)
		}
	}
	return levels
}

// plant puts a new current snapshot below the one that was current.
func (vm *VirtualMachine) plant(item types.VirtualMachineSnapshotTree) {
	info := &types.VirtualMachineSnapshotInfo{}
	if vm.Snapshot != nil {
		*info = *vm.Snapshot
	}
	if cur := info.CurrentSnapshot; cur != nil {
		if parent, ok := Map.Get(*cur).(*VirtualMachineSnapshot); ok {
			parent.ChildSnapshot = append(parent.ChildSnapshot, item.Snapshot)
		}
		node := findSnapshotInTree(info.RootSnapshotList, *cur)
		node.ChildSnapshotList = append(node.ChildSnapshotList, item)
	} else {
		info.RootSnapshotList = append(info.RootSnapshotList, item)
	}
	info.CurrentSnapshot = &item.Snapshot
	vm.setSnapshots(info)
}

// setSnapshots makes info, or nothing if it is empty, the VM's tree of snapshots.
func (vm *VirtualMachine) setSnapshots(info *types.VirtualMachineSnapshotInfo) {
	var roots []types.ManagedObjectReference
	for _, item := range info.RootSnapshotList {
		roots = append(roots, item.Snapshot)
	}
	change := types.PropertyChange{Name: "snapshot", Val: nil}
	if len(roots) != 0 {
		change.Val = info
		if vm.Snapshot == nil {
			vm.Snapshot = &types.VirtualMachineSnapshotInfo{}
		}
	}
	Map.Update(vm, []types.PropertyChange{change, {Name: "rootSnapshot", Val: roots}})
}

// setDevices goes around Map.Update, which would write through to a snapshot's configuration.
func (vm *VirtualMachine) setDevices(devices []types.BaseVirtualDevice) {
	hardware := vm.Config.Hardware
	hardware.Device = devices
	Map.Update(vm, []types.PropertyChange{{Name: "config.hardware", Val: hardware}})
}

func (vm *VirtualMachine) setConsolidationNeeded(needed bool) {
	Map.Update(vm, []types.PropertyChange{
		{Name: "runtime.consolidationNeeded", Val: needed},
		{Name: "summary.runtime.consolidationNeeded", Val: needed},
	})
}

func (vm *VirtualMachine) logStun() {
	stun, ok := vadp.stuns[vm.Self.Value]
	if !ok {
		stun = defaultStun
	}
	vm.logLine(fmt.Sprintf("vcpu-0 - Checkpoint_Unstun: vm stopped for %d us", stun))
}

// logLine writes as ESXi does; the stock simulator's own lines look otherwise.
func (vm *VirtualMachine) logLine(text string) {
	if f, err := os.OpenFile(vm.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0644); err == nil {
		fmt.Fprintf(f, "%s In(05) %s\n", time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), text)
		f.Close()
	}
}

// CreateSnapshotTask replaces the stock one, which books a snapshot without any disk.
func (vm *VirtualMachine) CreateSnapshotTask(req *types.CreateSnapshot_Task) soap.HasFault {
	task := CreateTask(vm, "createSnapshot", func(*Task) (types.AnyType, types.BaseMethodFault) {
		return vm.makeSnapshot(req.Name, req.Description, req.Quiesce)
	})
	return &methods.CreateSnapshot_TaskBody{Res: &types.CreateSnapshot_TaskResponse{Returnval: task.Run()}}
}

// CreateSnapshotExTask is the same with more ways to quiesce.
func (vm *VirtualMachine) CreateSnapshotExTask(req *types.CreateSnapshotEx_Task) soap.HasFault {
	task := CreateTask(vm, "createSnapshotEx", func(*Task) (types.AnyType, types.BaseMethodFault) {
		return vm.makeSnapshot(req.Name, req.Description, req.QuiesceSpec != nil)
	})
	return &methods.CreateSnapshotEx_TaskBody{Res: &types.CreateSnapshotEx_TaskResponse{Returnval: task.Run()}}
}
