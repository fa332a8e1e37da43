// Removal of snapshots, consolidation of what removals left, and reverts.
package simulator

import (
	"os"
	"strings"
	"sync/atomic"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

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
	vm, ok := Map.Get(v.Vm).(*VirtualMachine)
	if !ok { // destroyed, and its snapshots with it
		gone := Fault("", &types.ManagedObjectNotFound{Obj: v.Self})
		return &methods.RemoveSnapshot_TaskBody{Fault_: gone}
	}
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
