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

// views are the devices of the VM and of each of its snapshots.
func (vm *VirtualMachine) views() [][]types.BaseVirtualDevice {
	res := [][]types.BaseVirtualDevice{vm.Config.Hardware.Device}
	if vm.Snapshot != nil {
		for _, ref := range allSnapshotsInTree(vm.Snapshot.RootSnapshotList) {
			if s, ok := Map.Get(ref).(*VirtualMachineSnapshot); ok {
				res = append(res, s.Config.Hardware.Device)
			}
		}
	}
	return res
}

// merge gives the content of file's only child to file, in every view; of several children, by
// reverts, none needs it, as each holds its whole content.
func (vm *VirtualMachine) merge(file string) {
	children := map[*types.VirtualDiskFlatVer2BackingInfo]bool{} // views share parts of chains
	names := map[string]bool{}
	for _, view := range vm.views() {
		for _, d := range vmDisks(view) {
			for b := back(d); b != nil; b = b.Parent {
				if b.Parent != nil && b.Parent.FileName == file {
					children[b] = true
					names[b.FileName] = true
				}
			}
		}
	}
	for b := range children {
		if len(names) == 1 {
			if _, err := os.Stat(flat(b.FileName)); err == nil {
				_ = os.Rename(flat(b.FileName), flat(file))
				_ = os.Remove(dsFile(b.FileName))
			}
			b.FileName = file
		}
		b.Parent = b.Parent.Parent
	}
	if len(names) > 1 {
		_, _ = os.Remove(flat(file)), os.Remove(dsFile(file))
	}
}

// dropSnapshots takes snapshots out of the tree, merging their disks unless their deltas stay.
func (vm *VirtualMachine) dropSnapshots(refs []types.ManagedObjectReference, consolidate bool) {
	info := &types.VirtualMachineSnapshotInfo{}
	if vm.Snapshot != nil {
		*info = *vm.Snapshot
	}
	for _, ref := range refs {
		s, ok := Map.Get(ref).(*VirtualMachineSnapshot)
		if !ok {
			continue
		}
		if consolidate {
			for _, d := range vmDisks(s.Config.Hardware.Device) {
				if back(d) != nil {
					vm.merge(back(d).FileName)
				}
			}
		}
		if info.CurrentSnapshot != nil && *info.CurrentSnapshot == ref {
			info.CurrentSnapshot = findParentSnapshotInTree(info.RootSnapshotList, ref)
		}
		info.RootSnapshotList = removeSnapshotInTree(info.RootSnapshotList, ref, false)
		vm.setSnapshots(info)
		Map.Remove(ref)
	}
	if !consolidate {
		vm.setConsolidationNeeded(true)
	}
	vm.setDevices(vm.Config.Hardware.Device)
	vm.logStun()
}

// RemoveSnapshotTask merges the snapshot's disks; its entity is the VM, as pyvmomi wants.
func (v *VirtualMachineSnapshot) RemoveSnapshotTask(_ *Context, req *types.RemoveSnapshot_Task) soap.HasFault {
	vm := Map.Get(v.Vm).(*VirtualMachine)
	task := CreateTask(v, "removeSnapshot", func(*Task) (types.AnyType, types.BaseMethodFault) {
		if Map.Get(v.Self) == nil {
			return nil, &types.ManagedObjectNotFound{Obj: v.Self}
		}
		refs := []types.ManagedObjectReference{v.Self}
		if req.RemoveChildren {
			node := findSnapshotInTree(vm.Snapshot.RootSnapshotList, v.Self)
			refs = append(refs, allSnapshotsInTree(node.ChildSnapshotList)...)
		}
		consolidate := req.Consolidate == nil || *req.Consolidate
		if vadp.leftDeltas[vm.Self.Value] > 0 {
			vadp.leftDeltas[vm.Self.Value]--
			consolidate = false
		}
		vm.dropSnapshots(refs, consolidate)
		return nil, nil
	})
	return &methods.RemoveSnapshot_TaskBody{Res: &types.RemoveSnapshot_TaskResponse{Returnval: task.Run()}}
}

// RemoveAllSnapshotsTask merges all.
func (vm *VirtualMachine) RemoveAllSnapshotsTask(_ *Context, req *types.RemoveAllSnapshots_Task) soap.HasFault {
	task := CreateTask(vm, "removeAllSnapshots", func(*Task) (types.AnyType, types.BaseMethodFault) {
		if vm.Snapshot != nil {
			refs := allSnapshotsInTree(vm.Snapshot.RootSnapshotList)
			vm.dropSnapshots(refs, req.Consolidate == nil || *req.Consolidate)
		}
		return nil, nil
	})
	return &methods.RemoveAllSnapshots_TaskBody{Res: &types.RemoveAllSnapshots_TaskResponse{Returnval: task.Run()}}
}

// ConsolidateVMDisksTask merges what removals have left.
func (vm *VirtualMachine) ConsolidateVMDisksTask(*types.ConsolidateVMDisks_Task) soap.HasFault {
	task := CreateTask(vm, "consolidateVMDisks", func(*Task) (types.AnyType, types.BaseMethodFault) {
		kept := map[string]bool{} // what a snapshot still needs
		for _, view := range vm.views()[1:] {
			for _, d := range vmDisks(view) {
				if back(d) != nil {
					kept[back(d).FileName] = true
				}
			}
		}
		for _, d := range vmDisks(vm.Config.Hardware.Device) {
			for b := back(d); b != nil && b.Parent != nil; {
				if kept[b.Parent.FileName] {
					b = b.Parent
				} else {
					vm.merge(b.Parent.FileName)
				}
			}
		}
		vm.setConsolidationNeeded(false)
		vm.setDevices(vm.Config.Hardware.Device)
		vm.logStun()
		return nil, nil
	})
	return &methods.ConsolidateVMDisks_TaskBody{Res: &types.ConsolidateVMDisks_TaskResponse{Returnval: task.Run()}}
}

// revert makes the content of a snapshot that of the live disks; tracking starts anew.
func (vm *VirtualMachine) revert(s *VirtualMachineSnapshot) types.BaseMethodFault {
	n := atomic.AddInt32(&vm.sid, 1)
	old := vmDisks(vm.Config.Hardware.Device)
	devices := copyDevices(s.Config.Hardware.Device)
	for _, d := range vmDisks(devices) {
		if b := back(d); b != nil && !strings.HasPrefix(b.DiskMode, "independent") {
			b.ChangeId = ""
			if err := vm.startChild(d, n); err != nil {
				return &types.FileFault{File: b.FileName}
			}
		}
	}
	vm.setDevices(devices)
	vm.resetTracking("reverted")
	for _, d := range old { // live disks that no snapshot has as its own
		if b := back(d); b != nil && b.Parent != nil {
			_, _ = os.Remove(flat(b.FileName)), os.Remove(dsFile(b.FileName))
		}
	}
	info := *vm.Snapshot
	info.CurrentSnapshot = &s.Self
	vm.setSnapshots(&info)
	vm.logStun()
	return nil
}

// RevertToSnapshotTask reverts to any snapshot.
func (v *VirtualMachineSnapshot) RevertToSnapshotTask(*types.RevertToSnapshot_Task) soap.HasFault {
	task := CreateTask(v, "revertToSnapshot", func(*Task) (types.AnyType, types.BaseMethodFault) {
		return nil, Map.Get(v.Vm).(*VirtualMachine).revert(v)
	})
	return &methods.RevertToSnapshot_TaskBody{Res: &types.RevertToSnapshot_TaskResponse{Returnval: task.Run()}}
}

// RevertToCurrentSnapshotTask reverts to the current one.
func (vm *VirtualMachine) RevertToCurrentSnapshotTask(*types.RevertToCurrentSnapshot_Task) soap.HasFault {
	body := &methods.RevertToCurrentSnapshot_TaskBody{}
	if vm.Snapshot == nil || vm.Snapshot.CurrentSnapshot == nil {
		body.Fault_ = Fault("snapshot not found", &types.NotFound{})
		return body
	}
	task := CreateTask(vm, "revertSnapshot", func(*Task) (types.AnyType, types.BaseMethodFault) {
		return nil, vm.revert(Map.Get(*vm.Snapshot.CurrentSnapshot).(*VirtualMachineSnapshot))
	})
	body.Res = &types.RevertToCurrentSnapshot_TaskResponse{Returnval: task.Run()}
	return body
}
